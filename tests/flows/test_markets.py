"""Markets smaller than a region: systems, stations, structures, in one table or one each."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.market.book import make_orders
from flows.market_data import market_data
from flows.universe import universe
from tasks.table import read_records
from tasks.table.guards import ShrinkError
from tasks.table.requests import Item
from tests.support.esi import EsiMarket
from tests.support.faults.plan import Plan
from tests.support.faults.store import Capacity, serve_faulty_store
from tests.support.markets import REGION, find_busiest, keep
from tests.support.tables import expire, scan_markets
from tests.support.truth import drop_key, place_truth
from tests.support.worlds import INSMOTHER, VENAL, Clock

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


def pass_time(dynamodb: DynamoDBClient, clock: Clock, table_name: str, places: list[int]) -> None:
    """Let the next snapshot come."""
    for place in places:
        expire(dynamodb, table_name, str(place), "#snapshot")
    clock.now += 300


def split(items: dict[tuple[str, str], Item]) -> dict[int, dict[str, Item]]:
    """Return each market's items of a table by type, without keys."""
    found: dict[int, dict[str, Item]] = {}
    for (pk, sk), item in items.items():
        found.setdefault(int(pk), {})[sk] = drop_key(item)
    return found


@pytest.mark.parametrize("parameters", [{}, {"order_type": "all", "price": "percentile_5", "detail": "full"}], ids=str)
def test_all_kinds_at_once_are_exact(
    dynamodb: DynamoDBClient,
    market: EsiMarket,
    clock: Clock,
    table_name: str,
    parameters: dict[str, str],
) -> None:
    """Region, system and stations in one table are exact over two snapshots, with the region's requests only."""
    places = find_busiest(market, INSMOTHER)
    for _ in range(2):
        market.reset_counts()
        summary = keep(table_name, places, INSMOTHER, **parameters)
        assert market.requests == {"HEAD 200": 1, "GET 200": 3}
        found = split(scan_markets(dynamodb, table_name))
        assert sorted(found) == sorted(places)
        for place in places:
            snapshot = found[place].pop("#snapshot")
            assert (snapshot["market_id"], snapshot["region_id"]) == ({"N": str(place)}, {"N": str(INSMOTHER)})
            assert snapshot["version"] == {"N": "2"}
            assert strip_stddev(found[place]) == strip_stddev(place_truth(market, INSMOTHER, place, **parameters))
        assert [each.market_id for each in summary.markets] == sorted(places)
        assert summary.records == sum(map(len, found.values()))
        pass_time(dynamodb, clock, table_name, places)


def strip_stddev(items: dict[str, Item]) -> dict[str, Item]:
    """Return items without `stddev`, whose last digit depends on the square root."""
    return {
        name: {
            key: {"M": {figure: n for figure, n in value["M"].items() if figure != "stddev"}} if "M" in value else value
            for key, value in item.items()
        }
        for name, item in items.items()
    }


def test_same_order_counts_in_each_market(places: list[int], table_name: str) -> None:
    """An order counts in its station, its system and its region."""
    keep(table_name, places)
    region, _snapshot = read_records(table_name, places[0])
    station, _snapshot = read_records(table_name, places[2])
    assert set(station) <= set(region)
    assert all(region[type_id].volume >= record.volume for type_id, record in station.items())
    assert all(region[type_id].price <= record.price for type_id, record in station.items())


def test_markets_of_type_keys_have_tables_of_their_own(
    dynamodb: DynamoDBClient, market: EsiMarket, places: list[int], table_name: str
) -> None:
    """With `{market_id}` in the table name, each market has its own table."""
    template = table_name + "-{market_id}"
    summary = market_data(REGION, template, markets=places[2:])
    for place in places[2:]:
        records, snapshot = read_records(template.replace("{market_id}", str(place)))
        assert snapshot.market_id == place
        assert len(records) == len(place_truth(market, REGION, place))
    assert summary.written == summary.records > 0


def test_market_without_orders_is_empty_and_complete(table_name: str, places: list[int]) -> None:
    """A market of another region is empty and complete, and the summary says that it has no orders."""
    elsewhere = 60008494
    summary = keep(table_name, [elsewhere, places[2]])
    records, snapshot = read_records(table_name, elsewhere)
    assert (records, snapshot.state, snapshot.orders) == ({}, "complete", 0)
    assert {each.market_id: each.orders > 0 for each in summary.markets} == {elsewhere: False, places[2]: True}


def test_market_whose_last_order_is_gone_is_emptied(
    dynamodb: DynamoDBClient, market: EsiMarket, clock: Clock, table_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A station whose last few orders are gone has no records left."""
    few = rare_station(market)
    keep(table_name, [few])
    assert read_records(table_name, few)[0]
    whole = make_orders

    def make_others(seed: int, region_id: int, index: int) -> Any:
        orders = whole(seed, region_id, index)
        return orders[orders.location_id != few].reset_index(drop=True)

    monkeypatch.setattr("deployments.local.market.market.make_orders", make_others)
    pass_time(dynamodb, clock, table_name, [few])
    summary = keep(table_name, [few])
    assert summary.deleted
    assert read_records(table_name, few)[0] == {}


def rare_station(market: EsiMarket) -> int:
    """Return a station of the region with sell orders of 1 to 20 types in this snapshot."""
    orders = make_orders(market.seed, REGION, market.index)
    sells = orders[~orders.is_buy_order & (orders.location_id < 10**12)]
    types = sells.groupby("location_id").type_id.nunique()
    rare = types[types <= 20]
    if rare.empty:
        pytest.fail("the region has no small station")
    return int(rare.index[0])


def test_shrunk_market_leaves_the_others_alone(
    dynamodb: DynamoDBClient, market: EsiMarket, clock: Clock, places: list[int], table_name: str
) -> None:
    """A market that would lose most of its records fails the run, but the run's other markets are stored."""
    keep(table_name, places)
    for number in range(2_000):
        if number % 25 == 0:
            batch: list[Any] = []
        item = {
            "pk": {"S": str(places[3])},
            "sk": {"S": str(10**7 + number)},
            "price": {"N": "1"},
            "volume": {"N": "1"},
        }
        batch.append({"PutRequest": {"Item": item}})
        if len(batch) == 25:
            dynamodb.batch_write_item(RequestItems={table_name: batch})
    pass_time(dynamodb, clock, table_name, places)
    with pytest.raises(ShrinkError, match=f"station {places[3]} has .* under half"):
        keep(table_name, places)
    found = split(scan_markets(dynamodb, table_name))
    now = {place: found[place].pop("#snapshot")["last_modified"] for place in places}
    assert len({now[place]["S"] for place in places[:3]}) == 1
    assert now[places[3]]["S"] < now[REGION]["S"]
    for place in places[:3]:
        assert found[place] == place_truth(market, REGION, place)


def test_only_what_is_behind_is_written(
    dynamodb: DynamoDBClient, market: EsiMarket, places: list[int], table_name: str
) -> None:
    """A market added later is filled from the same snapshot; the others are left as they are."""
    keep(table_name, places[:2])
    expire(dynamodb, table_name, str(places[0]), "#snapshot")
    summary = keep(table_name, places)
    assert {each.market_id: each.not_modified for each in summary.markets} == {
        place: place in places[:2] for place in places
    }
    assert keep(table_name, places[2:]).not_modified


def test_runs_on_overlapping_markets(market: EsiMarket, places: list[int], table_name: str) -> None:
    """Two runs at once that share markets leave each market exact."""
    keep(table_name, [REGION])  # creates the table
    failures: list[BaseException] = []

    def run(markets: list[int]) -> None:
        try:
            keep(table_name, markets, force=True)
        except BaseException as error:  # noqa: BLE001 (checked below)
            failures.append(error)

    threads = [threading.Thread(target=run, args=[some]) for some in (places[:3], [places[3], *places[1:3]])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for place in places:
        records, snapshot = read_records(table_name, place)
        assert snapshot.state == "complete"
        assert len(records) == len(place_truth(market, REGION, place))


def test_universe_keeps_markets_of_regions(market: EsiMarket, places: list[int], table_name: str) -> None:
    """The universe keeps markets of several regions in one table, each exact."""
    markets = {REGION: places[2:], 10000003: [10000003]}
    summary = universe(table_name=table_name, key="market_type", markets=markets)
    assert (summary.stored, summary.failed) == (2, 0)
    for region_id, ids in markets.items():
        for market_id in ids:
            records, snapshot = read_records(table_name, market_id)
            assert snapshot.region_id == region_id
            assert len(records) == len(place_truth(market, region_id, market_id))
    assert universe(table_name=table_name, key="market_type", markets=markets).not_modified == 2


def test_first_fill_of_a_throttled_partition(store_url: str, table_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition with limited writes per second is filled at its pace, and the run succeeds."""
    capacity = Capacity(400.0)
    with serve_faulty_store(store_url, Plan([]), capacity) as url, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        summary = market_data(VENAL, table_name, key="market_type", markets=[VENAL])
    assert summary.written > 2_000
    assert capacity.refused
    assert read_records(table_name, VENAL)[1].state == "complete"


def test_newer_market_holds_up_no_other(
    dynamodb: DynamoDBClient, market: EsiMarket, clock: Clock, places: list[int], table_name: str
) -> None:
    """A market that another run keeps writing fails the run, but the run's other markets become complete."""
    keep(table_name, places)
    dynamodb.update_item(
        TableName=table_name,
        Key={"pk": {"S": str(places[3])}, "sk": {"S": "#snapshot"}},
        UpdateExpression="SET last_modified = :later",
        ExpressionAttributeValues={
            ":later": {"S": f"{datetime.fromtimestamp(clock.now + 600, UTC):%Y-%m-%dT%H:%M:%SZ}"}
        },
    )
    pass_time(dynamodb, clock, table_name, places[:3])
    summary = keep(table_name, places, force=False)
    assert {each.market_id for each in summary.markets if not each.not_modified} == set(places[:3])
    found = split(scan_markets(dynamodb, table_name))
    assert {found[place]["#snapshot"]["state"]["S"] for place in places} == {"complete"}
