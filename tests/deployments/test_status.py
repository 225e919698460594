"""The status of tables and their runs, from the runs of a Prefect server or from the table alone."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.local import stack
from deployments.local.commands import status
from deployments.local.environment import Options
from deployments.status import DEFAULTS, main
from flows.market_data import market_data
from flows.next_run import TAG
from flows.paged_api import Records, Source, paged_api
from flows.structure_market import structure_market
from flows.universe import universe
from tests.support.api import Api
from tests.support.apis import make_prices, serve_apis
from tests.support.commands import Commands
from tests.support.runs import ask
from tests.support.servers import PrefectServer
from tests.support.tables import scan
from tests.support.worlds import VENAL

SMALL, DOMAIN, JITA = 10000003, 10000043, 60003760  # of one page, of 190, a station
SCHEDULED, RUNNING, COMPLETED = ({"type": kind} for kind in ("SCHEDULED", "RUNNING", "COMPLETED"))
FAILED = {"type": "FAILED", "name": "Failed", "message": "Flow run encountered an exception: EsiError: page 3 of 7"}

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Yield a Prefect server that has only the runs of these tests."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    yield server
    server.stop()


@pytest.fixture
def own(server: PrefectServer) -> Api:
    """Return the API of that server, without runs."""
    for path in ("deployments", "flow_runs"):
        while found := ask(server.api, f"/{path}/filter", {}):
            for each in found:
                server.api.send("DELETE", f"/{path}/{each['id']}")
    return server.api


def make_run(
    api: Api,
    flow: str,
    parameters: dict[str, Any],
    *states: dict[str, str],
    due: float = 0.0,
    tags: tuple[str, ...] = (),
) -> None:
    """Create a run that is due some seconds from now, and set its states."""
    flow_id = ask(api, "/flows/", {"name": flow})["id"]
    when = f"{datetime.now(UTC) + timedelta(seconds=due):%Y-%m-%dT%H:%M:%SZ}"
    first = SCHEDULED | {"state_details": {"scheduled_time": when}}
    body = {"flow_id": flow_id, "parameters": parameters, "state": first, "tags": tags}
    run_id = ask(api, "/flow_runs/", body)["id"]
    for state in states:
        ask(api, f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})


def age(dynamodb: DynamoDBClient, table_name: str, seconds: int) -> None:
    """Make a table's snapshot older."""
    item = scan(dynamodb, table_name)["#snapshot"]
    old = f"{datetime.now(UTC) - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
    dynamodb.put_item(TableName=table_name, Item=item | {"last_modified": {"S": old}})


def read_status(
    capsys: pytest.CaptureFixture[str], api: Api | None, table_name: str = "MarketData"
) -> tuple[int, dict[str, str]]:
    """Return the command's exit code, and its text on each table in one line, by the table's name."""
    capsys.readouterr()
    with temporary_settings({PREFECT_API_URL: api.url if api else ""}):
        code = main(["--table-name", table_name])
    blocks = re.split(r"\n(?=\S)", capsys.readouterr().out.strip())
    return code, {block.split(": ")[0]: " ".join(block.split(": ", 1)[1].split()) for block in blocks if block}


def test_status_without_a_server(table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server, the status comes from the table's `#snapshot`."""
    market_data(SMALL, table_name)
    code, shown = read_status(capsys, None, table_name)
    assert code == 0
    (line,) = shown.values()
    assert re.fullmatch(r"Vale of the Silent \(10000003\), complete, \d+ s old of \d{4}-\d\d-\d\d [\d:]+ UTC", line)


def test_stale_and_empty_tables_fail(
    table_name: str, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table is stale if its snapshot is over 15 minutes old, or if it does not exist."""
    market_data(SMALL, table_name)
    age(dynamodb, table_name, 901)
    code, shown = read_status(capsys, None, table_name)
    assert (code, shown["stale"]) == (1, f"{table_name} (older than 15 minutes)")
    code, shown = read_status(capsys, None, f"{table_name}-none")
    assert (code, shown["stale"]) == (1, f"{table_name}-none (empty)")


def test_table_is_that_of_the_runs_own_parameters(
    own: Api, table_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is that of the run's parameters, not of its deployment's; a failed run fails the status."""
    flow = ask(own, "/flows/", {"name": "market-data"})
    template = f"{table_name}-{{region_id}}"
    deployment = {"name": "region", "flow_id": flow["id"], "parameters": {"region_id": DOMAIN, "table_name": template}}
    ask(own, "/deployments/", deployment)
    run_id = own.create_run("market-data/region", {"region_id": SMALL})
    for state in (RUNNING, FAILED):
        ask(own, f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})
    code, shown = read_status(capsys, own)
    assert code == 1
    assert shown == {
        f"{table_name}-{SMALL}": "Vale of the Silent (10000003), empty run Failed; by hand page 3 of 7",
        "last run failed": f"{table_name}-{SMALL}",
    }


def test_only_the_last_run_counts(own: Api, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A completed run supersedes a failed one; a run that was cancelled before its start does not count."""
    parameters = {"region_id": SMALL, "table_name": table_name}
    market_data(SMALL, table_name)
    make_run(own, "market-data", parameters, RUNNING, FAILED)
    make_run(own, "market-data", parameters, RUNNING, COMPLETED)
    make_run(own, "market-data", parameters, {"type": "CANCELLED"})
    code, shown = read_status(capsys, own)
    assert code == 0
    assert shown[table_name].endswith("UTC; run Completed; by hand")


def test_universe_run_has_only_its_own_regions(
    own: Api, commands: Commands, table_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manual universe run has the regions that it was given; one that failed is empty, and none is late."""
    given = ["--region-ids", str(SMALL), str(VENAL), "19999999", "--table-name", f"{table_name}-{{region_id}}"]
    commands.run("flows.universe", *given, PREFECT_API_URL=own.url).check_returncode()
    code, shown = read_status(capsys, own)
    assert code == 1
    assert shown.keys() == {f"{table_name}-{region}" for region in (SMALL, VENAL, 19999999)} | {"stale"}
    for region_id in (SMALL, VENAL):
        assert shown[f"{table_name}-{region_id}"].endswith("UTC; universe run Completed; by hand")
    assert shown[f"{table_name}-19999999"] == "region 19999999, empty universe run Completed; by hand"
    assert shown["stale"] == f"{table_name}-19999999 (empty)"


def test_snapshots_show_which_regions_a_universe_run_updated(
    own: Api, table_name: str, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a run for several regions, each region's `#snapshot` shows whether it was updated."""
    for region_id in (SMALL, VENAL):
        market_data(region_id, f"{table_name}-{region_id}")
    age(dynamodb, f"{table_name}-{VENAL}", 3600)
    given = {"region_ids": [SMALL, VENAL, DOMAIN], "table_name": f"{table_name}-{{region_id}}"}
    make_run(own, "universe", given, RUNNING, COMPLETED)
    code, shown = read_status(capsys, own)
    assert code == 1
    assert shown[f"{table_name}-{SMALL}"].endswith("UTC; universe run Completed; by hand")
    assert shown[f"{table_name}-{DOMAIN}"] == "Domain (10000043), empty universe run Completed; by hand"
    old = f"{table_name}-{VENAL} (older than 15 minutes when its last run began)"
    assert shown["stale"] == f"{old}, {table_name}-{DOMAIN} (empty)"


def test_regions_of_a_shared_table_are_listed_separately(
    own: Api, table_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regions that share a table each have a status, from their own `#snapshot`."""
    market_data(SMALL, table_name, key="market_type")
    given = {"region_ids": [SMALL, VENAL], "table_name": table_name, "key": "market_type"}
    make_run(own, "universe", given, RUNNING, COMPLETED)
    code, shown = read_status(capsys, own)
    assert code == 1
    assert shown["stale"] == f"{table_name} (Venal) (empty)"


def test_markets_are_listed_by_name(own: Api, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each market of a table is listed, by the parameters of its runs; hubs have their names."""
    given = {"key": "market_type", "table_name": table_name}
    market_data(SMALL, table_name, key="market_type", markets=[JITA])
    make_run(own, "market-data", given | {"region_id": SMALL, "markets": [JITA]}, RUNNING, COMPLETED)
    markets = {str(DOMAIN): [60008494, 30002187], str(VENAL): [VENAL]}
    make_run(own, "universe", given | {"markets": markets}, RUNNING, FAILED)
    apart = {"region_id": SMALL, "table_name": f"{table_name}-{{region_id}}-{{market_id}}", "markets": [JITA]}
    make_run(own, "market-data", apart, RUNNING, COMPLETED)
    with temporary_settings({PREFECT_API_URL: own.url}):
        assert main([]) == 1
    shown = capsys.readouterr().out
    assert re.search(rf"^{table_name}: Jita 4-4 \({JITA}\), complete, \d+ s", shown.replace("\n  ", " "), re.MULTILINE)
    for market in ("Amarr (60008494)", "system 30002187", "Venal (10000015)"):
        assert f"{table_name}: {market}, empty" in shown.replace("\n  ", " ")
    assert f"{table_name}-{SMALL}-{JITA}: Jita 4-4 ({JITA}), empty" in shown.replace("\n  ", " ")


def test_markets_without_a_server(table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server, the status is that of the markets given."""
    market_data(SMALL, table_name, key="market_type", markets=[JITA])
    with temporary_settings({PREFECT_API_URL: ""}):
        assert main(["--table-name", table_name, "--markets", str(JITA)]) == 0
        assert main(["--table-name", table_name, "--markets", str(JITA), str(SMALL)]) == 1
    assert f"stale: {table_name} (Vale of the Silent) (empty)" in capsys.readouterr().out.replace("\n  ", " ")


def test_other_keys_are_reported(own: Api, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A table whose keys are not those of its runs is reported as such; the other tables are listed as usual."""
    market_data(SMALL, table_name, key="market_type")
    make_run(own, "market-data", {"region_id": SMALL, "table_name": table_name}, RUNNING, FAILED)
    market_data(SMALL, f"{table_name}-2")
    make_run(own, "market-data", {"region_id": SMALL, "table_name": f"{table_name}-2"}, RUNNING, COMPLETED)
    code, shown = read_status(capsys, own)
    assert code == 1
    assert "Vale of the Silent (10000003), its keys are not those of its runs run Failed" in shown[table_name]
    assert shown[f"{table_name}-2"].startswith("Vale of the Silent (10000003), complete, ")
    code, shown = read_status(capsys, None, table_name)
    assert (code, shown["stale"]) == (1, f"{table_name} (its keys are not those of its runs)")


def test_refused_run_for_another_region_is_named(own: Api, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A table is listed with the region that it has; a refused run for another region names that one."""
    market_data(SMALL, table_name)
    make_run(own, "market-data", {"region_id": VENAL, "table_name": table_name}, RUNNING, FAILED)
    code, shown = read_status(capsys, own)
    assert code == 1
    assert shown[table_name].startswith("Vale of the Silent (10000003), complete, ")
    assert "; run for Venal (10000015) Failed; by hand page 3 of 7" in shown[table_name]


def test_declared_sources_are_listed(own: Api, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of a declared source is listed with its URL, however old its data are; an empty one fails."""
    prices = make_prices(3)
    with serve_apis(prices) as url:
        given: dict[str, Any] = {
            "source": {"url": f"{url}{prices.path}", "pages": {"first": 0, "count_header": "X-Page-Total"}},
            "records": {"key": ["id", "type"]},
        }
        given["source"]["fields"] = {"id": "int", "type": {"type": "bool", "path": "/whitelisted"}}
        paged_api(Source(**given["source"]), Records(**given["records"]), table_name)
    make_run(own, "paged-api", given | {"table_name": table_name}, RUNNING, COMPLETED)
    code, shown = read_status(capsys, own)
    assert code == 0
    assert re.fullmatch(
        rf"{url}{prices.path}, complete, [\d,]+ s old of .* UTC; run Completed; by hand", shown[table_name]
    )
    make_run(own, "paged-api", given | {"table_name": f"{table_name}-2"}, RUNNING, COMPLETED)
    code, shown = read_status(capsys, own)
    assert (code, shown["stale"]) == (1, f"{table_name}-2 (empty)")


def test_structures_are_listed(own: Api, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A structure's run is listed with the structure's id."""
    given = {"structure_id": 1035466617946, "table_name": f"{table_name}-{{structure_id}}"}
    make_run(own, "structure-market", given, RUNNING, FAILED)
    _code, shown = read_status(capsys, own)
    assert shown[f"{table_name}-1035466617946"].startswith("structure 1035466617946, empty run Failed; by hand ")


@pytest.mark.parametrize(("tags", "late"), [((), ""), ((TAG,), r", 3\d s late")], ids=["by hand", "by schedule"])
def test_only_scheduled_runs_are_late(
    own: Api, table_name: str, capsys: pytest.CaptureFixture[str], tags: tuple[str, ...], late: str
) -> None:
    """A run is late if a schedule created it or it follows ESI's `Expires`; a manual run never is."""
    given = {"region_id": SMALL, "table_name": table_name}
    make_run(own, "market-data", given, RUNNING, COMPLETED, due=-30, tags=tags)
    _code, shown = read_status(capsys, own)
    assert re.search(rf" run Completed{late}; by hand", shown[table_name])


@pytest.mark.parametrize(
    ("flow", "given", "seconds", "stale"),
    [
        ("market-data", {"region_id": SMALL}, 890, ""),
        ("market-data", {"region_id": SMALL}, 901, " (older than 15 minutes)"),
        ("universe", {"region_ids": [SMALL]}, 2390, ""),
        ("universe", {"region_ids": [SMALL]}, 2401, " (older than 40 minutes)"),
    ],
)
def test_next_run_sets_the_limit_of_age(
    own: Api,
    table_name: str,
    dynamodb: DynamoDBClient,
    capsys: pytest.CaptureFixture[str],
    flow: str,
    given: dict[str, Any],
    seconds: int,
    stale: str,
) -> None:
    """A table with a scheduled run, of either flow, shows when it is due, and its data have a maximum age."""
    name = f"{table_name}-{SMALL}"
    market_data(SMALL, name)
    age(dynamodb, name, seconds)
    make_run(own, flow, given | {"table_name": f"{table_name}-{{region_id}}"}, due=60, tags=(TAG,))
    code, shown = read_status(capsys, own)
    assert re.search(r"UTC; next in [56]\d s$", shown[name])
    assert (code, shown.get("stale", "")) == ((1, name + stale) if stale else (0, ""))


def test_words_stay_whole(own: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines have at most 80 columns, except that a table's name stays whole, however long."""
    name = "MarketData-" + "a-10000002" * 24
    make_run(own, "market-data", {"region_id": DOMAIN, "table_name": name}, RUNNING, FAILED)
    with temporary_settings({PREFECT_API_URL: own.url}):
        main([])
    output = capsys.readouterr().out
    assert f"{name}: " in output
    assert not [line for line in output.splitlines() if len(line) > 80 and name not in line]


def test_silent_server_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """If the server does not answer, the only output is one sentence with its address."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert main([]) == 1
    output = capsys.readouterr()
    assert not output.out
    assert re.fullmatch(
        r"no status: the Prefect server at PREFECT_API_URL, http://127.0.0.1:9/api, does not respond \(.*\): "
        r"start it, or correct the address\n",
        output.err,
    )


def test_runs_are_those_of_the_store(
    own: Api,
    api: Api,
    table_name: str,
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Runs come from the stack's server for the stack's store, and from PREFECT_API_URL for the user's account."""
    make_run(own, "market-data", {"region_id": SMALL, "table_name": f"{table_name}-own"}, RUNNING, COMPLETED)
    market_data(SMALL, f"{table_name}-up")
    up = {"pid": os.getpid(), "esi_url": "", "store_url": store_url, "api_url": api.url}
    monkeypatch.setattr(stack, "ADDRESSES", tmp_path / "stack.json")
    (tmp_path / "stack.json").write_text(json.dumps(up))
    for name, value in {"PREFECT_API_URL": own.url, "AWS_ENDPOINT_URL_DYNAMODB": store_url}.items():
        monkeypatch.setenv(name, value)
    for store, shown, hidden in (("local", "up", "own"), ("aws", "own", "up")):
        status(Options(SMALL, "aws" if store == "aws" else "local", ""))
        output = capfd.readouterr().out
        assert f"{table_name}-{shown}: " in output
        assert f"{table_name}-{hidden}: " not in output


def test_killed_stack_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A killed stack does not count as up, although its file remains."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    monkeypatch.setattr(stack, "ADDRESSES", tmp_path / "stack.json")
    (tmp_path / "stack.json").write_text(
        json.dumps({"pid": gone.pid, "esi_url": "", "store_url": "http://127.0.0.1:9"})
    )
    assert stack.read_addresses() is None


def test_defaults_are_those_of_the_flows() -> None:
    """The defaults for parameters that a run does not have are those of its flow."""
    for flow in (market_data, structure_market, universe):
        for name, default in DEFAULTS[flow.name].items():
            assert flow.parameters.properties[name]["default"] == default
