"""The flow universe, run for real: regions as task runs, in one process."""

import random
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema

from flows.command import run_flow
from flows.universe import universe
from tasks import get_page_count, run_shard
from tasks.catalogue.names import list_regions, regions
from tasks.esi import shared_limit
from tasks.network import Waits
from tasks.reporting.universe_summary import RegionError
from tasks.table.read import read_records
from tasks.table.requests import Item
from tests.support.api import Api
from tests.support.esi import EsiMarket
from tests.support.runs import find_runs, read_task_runs
from tests.support.tables import expire, records, scan, scan_markets
from tests.support.truth import truth
from tests.support.worlds import Clock

PERIOD_BASIS, SMALL, INSMOTHER = 10000063, 10000003, 10000009
THREE = [PERIOD_BASIS, SMALL, INSMOTHER]

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


@pytest.fixture
def template() -> str:
    """Return a unique template of table names, one table per region."""
    return f"Universe-{random.getrandbits(64)}-{{region_id}}"


def shared_truth(market: EsiMarket, region_ids: list[int]) -> dict[tuple[str, str], Item]:
    """Return the exact contents of the table that regions share, by both keys, without `#snapshot`."""
    return {
        (str(region_id), pk): item | {"pk": {"S": str(region_id)}, "sk": {"S": pk}}
        for region_id in region_ids
        for pk, item in truth(market, region_id).items()
    }


def test_each_region_has_its_table(dynamodb: DynamoDBClient, market: EsiMarket, template: str) -> None:
    """Each region's table is exact, and the summary has each result, the totals, the slowest region and the cost."""
    summary = universe(THREE, template)
    for region_id in THREE:
        items = scan(dynamodb, template.replace("{region_id}", str(region_id)))
        assert records(items) == truth(market, region_id)
        assert items["#snapshot"]["region_id"] == {"N": str(region_id)}
    assert [region.region_id for region in summary.regions] == [INSMOTHER, PERIOD_BASIS, SMALL]
    assert (summary.stored, summary.not_modified, summary.failed) == (3, 0, 0)
    assert summary.pages == 5
    assert summary.records == summary.written == sum(len(truth(market, region_id)) for region_id in THREE)
    assert summary.slowest
    assert summary.slowest.seconds == max(each.seconds for each in summary.summaries)
    assert float(summary.cost_usd) == pytest.approx(summary.consumed_write_units * 0.625e-6, rel=0.01)


def test_regions_share_a_table(dynamodb: DynamoDBClient, market: EsiMarket, clock: Clock, table_name: str) -> None:
    """With the market as partition key, all share one table, exact over two snapshots, and each can be read alone."""
    for _ in range(2):
        assert universe(THREE, table_name, key="market_type").failed == 0
        items = scan_markets(dynamodb, table_name)
        snapshots = {key: items.pop(key) for key in list(items) if key[1] == "#snapshot"}
        assert items == shared_truth(market, THREE)
        assert {pk for pk, _sk in snapshots} == set(map(str, THREE))
        for region_id in THREE:
            expire(dynamodb, table_name, str(region_id), "#snapshot")
        clock.now += 300
    found, snapshot = read_records(table_name, INSMOTHER)
    assert (snapshot.market_id, snapshot.region_id) == (INSMOTHER, INSMOTHER)
    assert len(found) == sum(pk == str(INSMOTHER) for pk, _sk in items)
    type_id, record = next(iter(found.items()))
    assert str(record.price) == items[str(INSMOTHER), str(type_id)]["price"]["N"]


def test_one_region_fails_alone(dynamodb: DynamoDBClient, market: EsiMarket, template: str) -> None:
    """An unknown region fails and says why, and does not affect the others."""
    summary = universe([19999999, INSMOTHER], template)
    assert (summary.stored, summary.failed) == (1, 1)
    failed = next(region for region in summary.regions if region.state == "failed")
    assert failed.region_id == 19999999
    assert "is there a market region 19999999?" in failed.failure
    assert records(scan(dynamodb, template.replace("{region_id}", str(INSMOTHER)))) == truth(market, INSMOTHER)


def test_all_regions_fail(template: str) -> None:
    """If all regions fail, the run fails with the first one's reason."""
    with pytest.raises(RegionError, match="all of 2 regions .* is there a market region 19999998"):
        universe([19999998, 19999999], template)


def test_not_modified_costs_one_request_at_most(dynamodb: DynamoDBClient, market: EsiMarket, template: str) -> None:
    """Before `Expires`, no region sends ESI a request; after it, one HEAD each; nothing is written."""
    universe(THREE, template)
    market.reset_counts()
    summary = universe(THREE, template)
    assert (summary.not_modified, summary.written, market.requests) == (3, 0, {})
    for region_id in THREE:
        expire(dynamodb, template.replace("{region_id}", str(region_id)))
    assert universe(THREE, template).not_modified == 3
    assert market.requests == {"HEAD 200": 3}


@pytest.mark.parametrize(
    "given",
    [{"region_ids": []}, {"region_ids": [7]}, {"region_ids": "Jita"}, {"key": "both"}, {"concurrency": 0}],
    ids=str,
)
def test_wrong_parameter_is_refused(market: EsiMarket, given: dict[str, Any]) -> None:
    """A wrong parameter is refused before any request, with what is allowed."""
    with pytest.raises(ParameterTypeError, match="is refused: give "):
        universe(**given)
    assert not market.requests


def test_regions_need_keys_that_tell_them_apart(market: EsiMarket) -> None:
    """Several regions in one table keyed by item type are refused, with both ways out."""
    with pytest.raises(ValueError, match=r'"MarketData-\{region_id\}", or key="market_type"'):
        universe(THREE, "MarketData")
    assert not market.requests


def test_all_regions_largest_first() -> None:
    """Without a list, all regions are taken once, those with the most pages first, unknown ones before them."""
    listed = list_regions(None)
    assert sorted(listed) == list(regions())
    assert listed[:2] == [10000002, 10000043]
    assert list_regions([INSMOTHER, 19000400, 10000002, INSMOTHER]) == [19000400, 10000002, INSMOTHER]


def test_run_graph_shows_the_regions(api: Api, template: str) -> None:
    """Each region is its own task run in Prefect, and has a row in the artifact."""
    state = universe([INSMOTHER, SMALL], template, return_state=True)
    flow_run_id = str(state.state_details.flow_run_id)
    names = read_task_runs(api, flow_run_id, last=f"Keep Region {SMALL}")
    assert {f"Keep Region {INSMOTHER}", f"Keep Region {SMALL}"} <= set(names)
    summary = api.read_summary(flow_run_id)
    assert f"| Insmother | {INSMOTHER} | stored | 3 |" in summary


def test_command_takes_several_regions(capsys: pytest.CaptureFixture[str], template: str) -> None:
    """On the command line, an option takes several regions; the output says how all of them, or the one, ended."""
    assert run_flow(universe, "universe", ["--table-name", template, "--region-ids", str(INSMOTHER), str(SMALL)]) == 0
    assert "2 regions in " in capsys.readouterr().out
    assert run_flow(universe, "universe", ["--table-name", template, "--region-ids", str(SMALL)]) == 0
    assert "1 region in " in capsys.readouterr().out


@pytest.fixture
def idle_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[UUID]:
    """Yield the deployment for shares, whose id it is, and a worker that says it is ready, and takes none.

    ESI's tokens have a limit with its own name: it would hold up the runs of other tests.
    """
    monkeypatch.setattr(shared_limit, "LIMIT", f"esi-{random.getrandbits(64)}")
    with get_client(sync_client=True) as client:
        pool = client.create_work_pool(WorkPoolCreate(name=f"idle-{random.getrandbits(64)}", type="process"))
        schema = parameter_schema(universe).model_dump()
        flow_id = client.create_flow(universe)
        deployment_id = client.create_deployment(
            flow_id, "shard", work_pool_name=pool.name, parameter_openapi_schema=schema
        )
        client.send_worker_heartbeat(pool.name, "idle", heartbeat_interval_seconds=300)
        yield deployment_id
        client.delete_global_concurrency_limit_by_name(shared_limit.LIMIT)
        client.delete_deployment(deployment_id)
        client.delete_work_pool(pool.name)


def test_share_that_no_worker_takes_is_kept_here(
    dynamodb: DynamoDBClient,
    market: EsiMarket,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
    idle_worker: UUID,
    api: Api,
) -> None:
    """Shares that wait for a slot, such as the one that this run has, are taken back after a while and kept here."""
    monkeypatch.setattr(run_shard, "START_SECONDS", 1.0)
    summary = universe(THREE, template, shards=2)
    assert [run.state_name for run in find_runs(api, str(idle_worker))] == ["Cancelled"] * 2
    assert (summary.stored, summary.failed) == (3, 0)
    assert {region.region_id for region in summary.regions} == set(THREE)
    for region_id in THREE:
        assert records(scan(dynamodb, template.replace("{region_id}", str(region_id)))) == truth(market, region_id)


def test_region_that_waits_lets_another_in(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one turn, regions whose snapshots are about to expire do not wait for the next one after another."""
    both = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(get_page_count, "seconds_to_wait", lambda *_: 60.0)
    monkeypatch.setattr(Waits, "sleep", lambda *_: both.wait())
    assert universe([INSMOTHER, SMALL], template, concurrency=1).stored == 2
