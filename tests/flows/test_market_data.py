"""The flow, run for real against the market stand-in, the strict store and a Prefect server."""

from typing import Any

import pandas as pd
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.exceptions import ParameterTypeError

from deployments.local.market.book import make_orders
from flows.market_data import Summary, market_data
from tasks.esi.errors import RefusedError
from tasks.table.errors import TableError
from tasks.table.guards import ShrinkError
from tasks.table.requests import Item
from tests.support.api import Api
from tests.support.chaos.play import hurry
from tests.support.esi import EsiMarket
from tests.support.faults.issuer import serve_issuer
from tests.support.runs import read_task_runs
from tests.support.tables import expire, records, scan
from tests.support.truth import assert_same, truth
from tests.support.worlds import DERELIK, INSMOTHER, PERIOD_BASIS, VENAL, Clock

PARAMETERS: list[tuple[Any, Any, Any]] = [
    ("sell", "max", "full"),
    ("buy", "mean", "fuzzwork"),
    ("all", "weighted_mean", "compact"),
    ("all", "median", "fuzzwork"),
    ("sell", "percentile_5", "compact"),
    ("buy", "percentile_5", "full"),
]  # tests/tasks/test_aggregate.py has all of them

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


@pytest.mark.parametrize("region_id", [VENAL, DERELIK])
def test_first_run_fills_the_table(
    dynamodb: DynamoDBClient, market: EsiMarket, table_name: str, region_id: int
) -> None:
    """The table is exactly what the orders say, and `#snapshot` names the snapshot and the parameters.

    Venal has one page per chunk, Derelik five.
    """
    summary = market_data(region_id, table_name)
    items = scan(dynamodb, table_name)
    assert records(items) == truth(market, region_id)
    snapshot = items["#snapshot"]
    assert (snapshot["state"], snapshot["region_id"]) == ({"S": "complete"}, {"N": str(region_id)})
    assert (snapshot["market_id"], snapshot["version"]) == ({"N": str(region_id)}, {"N": "2"})
    assert snapshot["parameters"] == {
        "M": {"order_type": {"S": "sell"}, "price": {"S": "min"}, "detail": {"S": "compact"}}
    }
    assert snapshot["last_modified"]["S"] == f"{summary.last_modified:%Y-%m-%dT%H:%M:%SZ}"
    assert summary.last_modified.timestamp() == market.index * market.every


def test_first_run_sums_up(market: EsiMarket, table_name: str) -> None:
    """The summary counts orders, records and write units."""
    summary = market_data(INSMOTHER, table_name)
    orders = make_orders(market.seed, INSMOTHER, market.index)
    assert isinstance(summary, Summary)
    assert (summary.pages, summary.orders, summary.not_modified) == (3, len(orders), False)
    assert summary.written == summary.records == len(truth(market, INSMOTHER))
    assert (summary.deleted, summary.unchanged, summary.retries) == (0, 0, 0)
    assert summary.consumed_write_units == summary.records + 2


def test_second_run_before_expiry_sends_no_request(market: EsiMarket, table_name: str) -> None:
    """Before the stored snapshot's `Expires`, a run sends ESI no request, reads one item and writes nothing."""
    first = market_data(INSMOTHER, table_name)
    market.reset_counts()
    summary = market_data(INSMOTHER, table_name)
    assert not market.requests
    assert summary.not_modified
    assert (summary.consumed_read_units, summary.consumed_write_units, summary.written) == (1, 0, 0)
    assert (summary.last_modified, summary.records) == (first.last_modified, first.records)


def test_second_run_after_expiry_sends_one_request(
    dynamodb: DynamoDBClient, market: EsiMarket, table_name: str
) -> None:
    """A snapshot that outlives its `Expires` costs one HEAD: no page, no write."""
    market_data(INSMOTHER, table_name)
    expire(dynamodb, table_name)
    market.reset_counts()
    summary = market_data(INSMOTHER, table_name)
    assert market.requests == {"HEAD 200": 1}
    assert summary.not_modified
    assert (summary.consumed_read_units, summary.consumed_write_units) == (1, 0)


def test_forced_run_fetches_what_is_stored(market: EsiMarket, table_name: str) -> None:
    """With `force`, a stored snapshot is fetched and compared, and nothing needs writing."""
    market_data(INSMOTHER, table_name)
    market.reset_counts()
    summary = market_data(INSMOTHER, table_name, force=True)
    assert market.requests == {"HEAD 200": 1, "GET 200": 3}
    assert (summary.not_modified, summary.written, summary.unchanged) == (False, 0, summary.records)
    assert summary.consumed_write_units == 1  # `#snapshot` alone


def test_next_snapshot_writes_what_differs(
    dynamodb: DynamoDBClient, market: EsiMarket, clock: Clock, table_name: str
) -> None:
    """After the next snapshot the table is exact again, and no unchanged record was written."""
    market_data(INSMOTHER, table_name)
    before = records(scan(dynamodb, table_name))
    expire(dynamodb, table_name)
    clock.now += 300
    summary = market_data(INSMOTHER, table_name)
    after = records(scan(dynamodb, table_name))
    assert after == truth(market, INSMOTHER)
    assert summary.written == sum(before.get(pk) != item for pk, item in after.items())
    assert summary.deleted == len(before.keys() - after.keys())
    assert summary.unchanged == len(after) - summary.written > summary.written > 0
    assert summary.consumed_write_units == summary.written + summary.deleted + 2


def test_other_parameters_rewrite_what_differs(dynamodb: DynamoDBClient, market: EsiMarket, table_name: str) -> None:
    """With other parameters than the stored ones, a run is never not modified, and makes the table exact for them.

    Fewer types have buys than sells, so the shrink guard needs `force`.
    """
    region_id = 10000003  # one page
    market_data(region_id, table_name)
    for order_type, price, detail in PARAMETERS:
        force = order_type == "buy"
        summary = market_data(region_id, table_name, order_type=order_type, price=price, detail=detail, force=force)
        assert not summary.not_modified
        assert_same(records(scan(dynamodb, table_name)), truth(market, region_id, order_type, price, detail))


def test_empty_region_is_no_error(dynamodb: DynamoDBClient, table_name: str) -> None:
    """A region whose only page is `[]` leaves a table with a complete `#snapshot` and nothing else."""
    summary = market_data(PERIOD_BASIS, table_name)
    assert (summary.pages, summary.orders, summary.records) == (1, 0, 0)
    items = scan(dynamodb, table_name)
    assert list(items) == ["#snapshot"]
    assert items["#snapshot"]["state"] == {"S": "complete"}


@pytest.mark.parametrize(("fetch_concurrency", "latency_seconds"), [(1, 0.01), (5, 0.3)])
def test_requests_in_flight_are_bounded(
    market: EsiMarket, table_name: str, fetch_concurrency: int, latency_seconds: float
) -> None:
    """However many chunks there are, no more than `fetch_concurrency` requests are in flight at once."""
    market.latency_seconds = latency_seconds  # long enough for all requests to be in flight before the first response
    market_data(DERELIK, table_name, fetch_concurrency=fetch_concurrency)
    assert market.most_in_flight == fetch_concurrency


def test_run_graph_shows_the_five_states(api: Api, table_name: str) -> None:
    """In Prefect's API the task runs have the states' names, and mapped ones also the work that they do."""
    state = market_data(DERELIK, table_name, return_state=True)
    names = sorted(read_task_runs(api, str(state.state_details.flow_run_id)))
    assert {name for name in names if not name[-1].isdigit()} == {
        "Get Page Count",
        "Build Iterator",
        "Aggregate",
        "Store Records: compare",
        "Store Records: complete",
    }
    chunks = {f"Fetch Pages {page}-{page + 4}" for page in range(1, 21, 5)}  # DERELIK has 20 pages
    assert {name for name in names if name.startswith("Fetch Pages")} == chunks
    assert sum(name.startswith("Store Records 1-") for name in names) == 1
    assert state.name == "Completed"
    assert state.message
    assert state.message.startswith(f"{table_name} has region {DERELIK} of ")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        pytest.param({"region_id": 5}, "region_id: 5 is refused: give a region's id", id="region"),
        pytest.param({"region_id": "Jita"}, "region_id: 'Jita' is refused: give a region's id", id="region name"),
        pytest.param({"region_id": 20_000_000}, "region_id: 20000000 is refused", id="station id"),
        pytest.param({"table_name": "ab"}, "table_name: 'ab' is refused: give 3 to 255", id="short table name"),
        pytest.param({"table_name": "a b c"}, "table_name: 'a b c' is refused", id="spaces in table name"),
        pytest.param({"table_name": "Market-{region}"}, "table_name: .* is refused", id="unknown placeholder"),
        pytest.param({"table_name": "x" * 256}, "table_name: .* is refused", id="long table name"),
        pytest.param({"order_type": "sells"}, "order_type: 'sells' is refused: give sell, buy or all", id="order type"),
        pytest.param({"price": "avg"}, "price: 'avg' is refused: give min, max, mean", id="price"),
        pytest.param({"detail": "all"}, "detail: 'all' is refused: give compact, full or fuzzwork", id="detail"),
        pytest.param({"fetch_concurrency": 0}, "fetch_concurrency: 0 is refused: give 1 to 500", id="no fetches"),
        pytest.param({"fetch_concurrency": 501}, "fetch_concurrency: 501 is refused", id="too many fetches"),
        pytest.param({"fetch_concurrency": True}, "fetch_concurrency: True is refused: give 1 to 500", id="a bool"),
        pytest.param({"store_concurrency": -1}, "store_concurrency: -1 is refused: give 1 to 100", id="stores"),
        pytest.param({"force": "maybe"}, "force: 'maybe' is refused: give true or false", id="force"),
    ],
)
def test_bad_parameters_are_refused(market: EsiMarket, parameters: dict[str, Any], message: str) -> None:
    """A bad value is refused before any request; the message has the value and what to give instead."""
    with pytest.raises(ParameterTypeError, match=message):
        market_data(**parameters)
    assert not market.requests


def test_bad_esi_url_is_refused(monkeypatch: pytest.MonkeyPatch, table_name: str) -> None:
    """Plain http to another machine is refused, and the message says what to give."""
    monkeypatch.setenv("ESI_URL", "http://esi.evetech.net")
    with pytest.raises(ValueError, match="ESI_URL is 'http://esi.evetech.net': plain http is for this machine only"):
        market_data(INSMOTHER, table_name)


def test_unknown_region_says_so(table_name: str) -> None:
    """An unknown region id fails at once, and the message asks whether there is such a region."""
    with pytest.raises(RefusedError, match=r"region 10999999: ESI answered 404 .*is there a market region 10999999\?"):
        market_data(10999999, table_name)


def test_table_of_another_region_is_refused(dynamodb: DynamoDBClient, market: EsiMarket, table_name: str) -> None:
    """Another region's table is left alone, without a request; with `force` its records are replaced."""
    market_data(10000003, table_name)
    before = scan(dynamodb, table_name)
    market.reset_counts()
    with pytest.raises(TableError, match=f"{table_name} holds region 10000003, not {INSMOTHER}: .*MarketData-.* force"):
        market_data(INSMOTHER, table_name)
    assert not market.requests
    assert scan(dynamodb, table_name) == before
    market_data(INSMOTHER, table_name, force=True)
    assert records(scan(dynamodb, table_name)) == truth(market, INSMOTHER)


def test_table_without_snapshot_is_taken_over(dynamodb: DynamoDBClient, market: EsiMarket, table_name: str) -> None:
    """Existing records are compared like any others; foreign items are not touched."""
    market_data(10000003, table_name)
    dynamodb.delete_item(TableName=table_name, Key={"pk": {"S": "#snapshot"}})
    stale: Item = {"pk": {"S": "999999999"}, "price": {"N": "1"}, "volume": {"N": "1"}}
    foreign: Item = {"pk": {"S": "notes"}, "text": {"S": "mine"}}
    for item in (stale, foreign):
        dynamodb.put_item(TableName=table_name, Item=item)
    summary = market_data(10000003, table_name)
    assert (summary.written, summary.deleted) == (0, 1)
    assert records(scan(dynamodb, table_name)) == truth(market, 10000003) | {"notes": foreign}


@pytest.mark.parametrize("state", ["complete", "writing", "none"])
def test_market_without_its_sells_is_refused(
    dynamodb: DynamoDBClient, clock: Clock, table_name: str, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """A market without its sell orders for a while does not empty the table, whatever `#snapshot` says.

    The table may have other parameters, be left `writing` by a killed run, or lack `#snapshot`.
    """
    market_data(10000003, table_name, price="min")
    if state == "none":
        dynamodb.delete_item(TableName=table_name, Key={"pk": {"S": "#snapshot"}})
    elif state == "writing":
        dynamodb.update_item(
            TableName=table_name,
            Key={"pk": {"S": "#snapshot"}},
            UpdateExpression="SET #state = :state, #owner = :nobody",
            ExpressionAttributeNames={"#state": "state", "#owner": "owner"},
            ExpressionAttributeValues={":state": {"S": "writing"}, ":nobody": {"S": ""}},
        )
    before = scan(dynamodb, table_name)
    monkeypatch.setattr("deployments.local.market.market.make_orders", make_buys)
    clock.now += 300
    with pytest.raises(ShrinkError, match=r"region 10000003 has 0 records, the table 2\d\d: under half.*force"):
        market_data(10000003, table_name, price="max")
    assert scan(dynamodb, table_name) == before
    assert market_data(10000003, table_name, price="max", force=True).deleted == len(records(before))


@pytest.mark.parametrize("status", [429, 500])
def test_late_credentials_do_not_end_a_run(
    market: EsiMarket, dynamodb: DynamoDBClient, table_name: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """If a container's credential endpoint is busy at a run's start, it is retried, and the summary counts that."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.01)
    with hurry(), serve_issuer([(status, b"busy")] * 7) as issuer:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issuer.url}/credentials")
        summary = market_data(10000003, table_name)
    assert summary.retry_causes["CredentialRetrievalError"] == 2
    assert issuer.issued == 1
    assert records(scan(dynamodb, table_name)) == truth(market, 10000003)


def make_buys(seed: int, region_id: int, index: int) -> pd.DataFrame:
    """Return a snapshot's buy orders."""
    orders = make_orders(seed, region_id, index)
    return orders[orders["is_buy_order"]]
