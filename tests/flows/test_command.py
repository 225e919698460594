"""The flow from the command line: its options, output and exit codes."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect import Flow

from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from flows.command import run_flow
from flows.market_data import market_data
from flows.paged_api import paged_api
from flows.player_count import player_count
from flows.structure_market import structure_market
from flows.universe import universe
from tasks.allowed import Allowed
from tests.support.api import Api
from tests.support.apis import make_prices, serve_apis
from tests.support.commands import Commands
from tests.support.faults.plan import Fault, Plan
from tests.support.faults.store import serve_faulty_store
from tests.support.runs import ask
from tests.support.tables import records, scan
from tests.support.truth import truth
from tests.support.worlds import DERELIK, INSMOTHER

PROGRAM = "python -m flows.market_data"
LOGGED = {"PREFECT_LOGGING_LEVEL": "INFO"}


def test_help_has_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` has each parameter, with its meaning, choices and default."""
    with pytest.raises(SystemExit) as ended:
        run_flow(market_data, PROGRAM, ["--help"])
    assert ended.value.code == 0
    output = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name in market_data.parameters.properties:
        assert f"--{name.replace('_', '-')}" in output
    assert f"usage: {PROGRAM}" in output
    assert "Give a region's id, such as 10000002 for The Forge. (default: 10000015)" in output
    assert "{min,max,mean,weighted_mean,median,percentile_5}" in output
    assert "best 5 % of the volume" in output


@pytest.mark.parametrize("flow", [market_data, structure_market, universe, player_count], ids=lambda flow: flow.name)
def test_help_has_what_is_allowed(flow: Flow[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` says what each option accepts, in the same words as a refusal."""
    with pytest.raises(SystemExit):
        run_flow(flow, PROGRAM, ["--help"])
    output = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name, annotation in flow.fn.__annotations__.items():
        if name not in {"force", "return"}:
            (allowed,) = [each.allowed for each in annotation.__metadata__ if isinstance(each, Allowed)]
            assert f"Give {allowed}." in output


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "market_data --fetch-concurrency 0",
            "--fetch-concurrency: '0' is refused: give 1 to 500, the pages in flight at",
        ),
        (
            "market_data --region-id 5 --detail all",
            "--region-id: '5' is refused: .*; --detail: 'all' is refused: give ",
        ),
        ("market_data --regoin-id 10000015", "unrecognized arguments: --regoin-id 10000015"),
        ("universe --markets [60003760]", r"--markets: \[60003760\] is refused: give for each region a list of ids"),
        ("structure_market --structure-id 5", "--structure-id: '5' is refused: give a player structure's id"),
        ("structure_market", "the following arguments are required: --structure-id"),
        ("universe --region-ids 5", r"--region-ids: \['5'\] is refused: give a list of regions' ids"),
        (
            "universe --region-ids 10000003 10000015",
            "table_name '.*' with key 'type' would put 2 regions into one table",
        ),
        ("player_count --keep-days never", "--keep-days: 'never' is refused: give 1 to 36500"),
    ],
)
def test_refusal_is_one_line(api: Api, commands: Commands, table_name: str, command: str, message: str) -> None:
    """Wrong parameters are refused in one line, with exit code 2 and no flow run."""
    module, *arguments = command.split()
    done = commands.run(f"flows.{module}", *arguments, "--table-name", table_name, **LOGGED)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert re.match(f"python -m flows.{module}: {message}", line)
    runs = ask(
        api,
        "/flow_runs/filter",
        {"flow_runs": {"start_time": {"is_null_": False}}, "sort": "START_TIME_DESC", "limit": 200},
    )
    assert table_name not in [found["parameters"].get("table_name") for found in runs]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("command", "environ", "sentence"),
    [
        ("market_data --region-id 19999999", {}, "region 19999999: ESI answered 404 Not Found"),
        ("market_data", {"AWS_ENDPOINT_URL_DYNAMODB": "elsewhere"}, "table .* does not exist in us-east-1"),
        ("market_data", {"AWS_ENDPOINT_URL_DYNAMODB": "denied"}, "table .*AccessDeniedException"),
        ("market_data", {"AWS_PROFILE": "nobody"}, "The config profile .nobody. could not be found"),
        ("market_data", {"ESI_URL": "ftp://esi"}, "ESI_URL is 'ftp://esi': give an http"),
        ("structure_market --structure-id 1000000000002", {}, "Secret block"),
        ("player_count", {"AWS_ENDPOINT_URL_DYNAMODB": "elsewhere"}, "table .* does not exist in us-east-1"),
        ("universe --region-ids 19999999", {}, "all of 1 region in .* 1 failed"),
    ],
)
def test_failure_is_one_sentence(
    api: Api,
    commands: Commands,
    store_url: str,
    table_name: str,
    command: str,
    environ: dict[str, str],
    sentence: str,
) -> None:
    """An error of this project ends the command with one sentence, and no traceback.

    The sentence is also in the run's log in Prefect, once, and in the message of the run's state.
    """
    module, *arguments = command.split()
    with serve_faulty_store(store_url, Plan([Fault("denied", times=1000)])) as denied:
        addresses = {"elsewhere": store_url.replace("127.0.0.1", "0.0.0.0"), "denied": denied}
        given = {name: addresses.get(value, value) for name, value in environ.items()}
        done = commands.run(f"flows.{module}", *arguments, "--table-name", table_name, **LOGGED, **given)
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if re.search(sentence, line)]
    assert re.match(rf"[a-z-]+ failed: .*{sentence}", line)
    runs = ask(
        api,
        "/flow_runs/filter",
        {"flow_runs": {"start_time": {"is_null_": False}}, "sort": "START_TIME_DESC", "limit": 200},
    )
    ours = [found for found in runs if found["parameters"].get("table_name") == table_name]
    (ended,) = [found for found in ours if not found["parent_task_run_id"]]  # not a region's run of the universe
    assert re.search(sentence, ended["state"]["message"])
    wanted = {"logs": {"flow_run_id": {"any_": [ended["id"]]}}, "sort": "TIMESTAMP_ASC"}
    log = [entry["message"] for entry in ask(api, "/logs/filter", wanted)]
    assert [bool(re.search(sentence, line)) for line in log].count(True) == 1, log
    assert "Finished in state Failed" in log
    assert not [line for line in log if "Traceback" in line]


@pytest.mark.usefixtures("api")
def test_unknown_error_shows_its_traceback(tmp_path: Path) -> None:
    """Other errors keep their tracebacks, in the log and at the end, even a library's ValueError."""
    program = f"""
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
import pandas as pd
from prefect import flow
from flows.command import run_flow

@flow
def broken() -> str:
    return pd.DataFrame({{"a": [1, 2]}}, index=[0, 0]).reindex([1]).to_string()

run_flow(broken, "broken", [])
"""
    (tmp_path / "broken.py").write_text(program)
    done = subprocess.run([sys.executable, tmp_path / "broken.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") >= 2
    assert "ValueError: cannot reindex" in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--region-id", "Jita"], "'Jita' is refused: give a region's id, such as 10000002 for The Forge"),
        (["--price", "lowest"], "'lowest' is refused: give min, max, mean, weighted_mean, median or percentile_5"),
    ],
)
def test_wrong_option_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused value ends the command with exit code 2, and the message says what is allowed."""
    assert run_flow(market_data, PROGRAM, arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("api", "served", "store_url")
def test_failure_is_printed(capsys: pytest.CaptureFixture[str], table_name: str) -> None:
    """A failed run ends the command with exit code 1 and the error's message."""
    assert run_flow(market_data, PROGRAM, ["--region-id", "19999999", "--table-name", table_name]) == 1
    assert "market-data failed: region 19999999: ESI answered 404 Not Found" in capsys.readouterr().err


@pytest.mark.usefixtures("api", "served", "store_url")
def test_run_ends_with_its_summary(
    capsys: pytest.CaptureFixture[str], dynamodb: DynamoDBClient, market: Market, table_name: str
) -> None:
    """Without a terminal, a run prints its summary and no bars."""
    assert run_flow(market_data, PROGRAM, ["--region-id", str(INSMOTHER), "--table-name", table_name]) == 0
    out = capsys.readouterr().out
    assert re.search(
        rf"^{table_name} has region {INSMOTHER} of .* UTC: [\d,]+ records \([\d,]+ written, ", out, re.MULTILINE
    )
    assert "\x1b" not in out
    assert records(scan(dynamodb, table_name)) == truth(market, INSMOTHER)


@pytest.mark.usefixtures("api", "store_url")
def test_objects_are_json(capsys: pytest.CaptureFixture[str], dynamodb: DynamoDBClient, table_name: str) -> None:
    """A declaration is given as JSON, and its run prints its summary."""
    endpoint = make_prices(30)
    with serve_apis(endpoint) as url:
        source = {"url": f"{url}{endpoint.path}?page_size=200", "pages": {"first": 0, "count_header": "X-Page-Total"}}
        fields = {"id": "int", "sell": {"type": "int", "path": "/sells/unit_price"}}
        options = ["--source", json.dumps(source | {"fields": fields}), "--records", '{"key": "id"}']
        assert run_flow(paged_api, "python -m flows.paged_api", [*options, "--table-name", table_name]) == 0
    summary = rf"^{table_name} has 127.0.0.1:\d+{endpoint.path}.*: 30 records \(30 written, "
    assert re.search(summary, capsys.readouterr().out, re.MULTILINE)
    assert records(scan(dynamodb, table_name)) == {
        str(item["id"]): {"pk": {"S": str(item["id"])}, "sell": {"N": str(item["sells"]["unit_price"])}}
        for item in endpoint.items
    }


@pytest.mark.usefixtures("api", "served", "store_url")
def test_terminal_shows_bars(market: Market, table_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal, each mapped state is a bar that fills, instead of log lines."""
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    market.latency_seconds = 0.1
    chunks: list[bytes] = []

    def read(terminal: int) -> bytes:
        chunks.append(os.read(terminal, 4096))
        return chunks[-1]

    command = [sys.executable, "-m", "flows.market_data", "--region-id", str(DERELIK), "--table-name", table_name]
    code = pty.spawn([*command, "--fetch-concurrency", "2"], read, lambda _: b"")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(chunks).decode())
    assert os.waitstatus_to_exitcode(code) == 0
    counts = [int(count) for count in re.findall(r"Fetch Pages, pages .*?(\d+)/20", shown)]
    assert counts[-1] == 20
    assert len(set(counts)) > 3
    assert "Store Records, writes" in shown
    assert "Fetch Pages begins" not in shown
    assert f"{table_name} has region {DERELIK} of " in shown
