"""What a declared source shares with the market: snapshots, guards, limits, keys and secrets, in real runs."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.blocks.system import Secret
from pydantic import SecretStr

from deployments.local.market.market import Market
from flows.market_data import market_data
from flows.paged_api import SourceSummary, paged_api
from tasks.esi.errors import RefusedError
from tasks.table.client import Table
from tasks.table.create import create
from tasks.table.errors import KeySchemaError, TableError
from tasks.table.guards import ShrinkError
from tests.support.api import Api
from tests.support.apis import Endpoint, make_prices, serve_apis
from tests.support.servers import finish_reports, is_in_database
from tests.support.tables import scan, scan_markets

pytestmark = pytest.mark.usefixtures("store_url", "api")

SMALL = 10000005  # a region of one page
SECRET = "Bearer tea-in-the-garden"
FIELDS: dict[str, Any] = {"id": "int", "buy": {"type": "int", "path": "/buys/unit_price"}, "whitelisted": "bool"}


class Prices:
    """An API of prices, and a table of them."""

    def __init__(self, endpoint: Endpoint, url: str, table_name: str, dynamodb: DynamoDBClient) -> None:
        self.endpoint = endpoint
        self.url = f"{url}{endpoint.path}"
        self.table_name = table_name
        self._dynamodb = dynamodb
        self.authorizations: set[str] = set()

    def keep(
        self, *, key: Any = "id", force: bool = False, fetch_concurrency: int = 20, **source: Any
    ) -> SourceSummary:
        """Run the flow."""
        pages = {"first": 0, "count_header": "X-Page-Total"}
        declared: Any = {"url": self.url, "pages": pages, "fields": FIELDS} | source
        records: Any = {"key": key}
        summary: SourceSummary = paged_api(
            source=declared,
            records=records,
            table_name=self.table_name,
            force=force,
            fetch_concurrency=fetch_concurrency,
        )
        return summary

    def count(self, **source: Any) -> list[str]:
        """Run the flow, whose table is up to date, and return the methods of its requests."""
        self.endpoint.seen.clear()
        assert self.keep(**source).not_modified
        return [line.split()[0] for line in self.endpoint.seen]

    def items(self) -> dict[str, Any]:
        """Return all of the table."""
        return scan(self._dynamodb, self.table_name)

    def is_exact(self) -> bool:
        """Return whether the table has exactly the items on offer."""
        expected = {
            str(item["id"]): {
                "pk": {"S": str(item["id"])},
                "buy": {"N": str(item["buys"]["unit_price"])},
                "whitelisted": {"BOOL": item["whitelisted"]},
            }
            for item in self.endpoint.items
        }
        return {pk: item for pk, item in self.items().items() if pk != "#snapshot"} == expected


@pytest.fixture
def prices(table_name: str, dynamodb: DynamoDBClient) -> Iterator[Prices]:
    """Yield an API of 60 prices on six pages, and a table that does not exist yet."""
    endpoint = make_prices(60)
    endpoint.size = 10

    def check(headers: Any) -> None:
        opened.authorizations.add(headers.get("Authorization", ""))

    with serve_apis(endpoint, check=check) as url:
        opened = Prices(endpoint, url, table_name, dynamodb)
        yield opened


def test_snapshot_may_have_any_name(prices: Prices) -> None:
    """A header that is no date names the snapshot: one request if it is the same, all pages again if it moves on."""
    endpoint = prices.endpoint
    endpoint.headers = {"X-Version": "a"}
    prices.keep(snapshot_header="X-Version")
    assert prices.is_exact()
    assert prices.items()["#snapshot"]["snapshot"] == {"S": "a"}
    assert prices.count(snapshot_header="X-Version") == ["HEAD"]

    def move_on() -> None:
        endpoint.headers = {"X-Version": "c"}
        endpoint.items = [item | {"buys": {"unit_price": 7}} for item in endpoint.items]

    endpoint.headers = {"X-Version": "b"}
    endpoint.on_page = {3: move_on}
    endpoint.seen.clear()
    prices.keep(snapshot_header="X-Version", fetch_concurrency=1)
    assert prices.is_exact()
    assert prices.items()["#snapshot"]["snapshot"] == {"S": "c"}
    assert [line.split()[0] for line in endpoint.seen].count("HEAD") == 2


def test_dates_are_believed_as_far_as_declared(prices: Prices) -> None:
    """Before `Expires` nothing is requested, unless it is further ahead than `max_fresh_seconds`."""
    dated: dict[str, Any] = {"snapshot_header": "Last-Modified", "expires_header": "Expires"}
    prices.endpoint.is_dated = True
    prices.keep(**dated, max_fresh_seconds=299)
    assert prices.count(**dated, max_fresh_seconds=200) == ["HEAD"]
    prices.keep(**dated, force=True)
    assert prices.count(**dated) == []


def test_authorization_reaches_the_server_alone(prices: Prices, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """The Secret block's value is sent, and is in no log line, parameter, artifact or other row of Prefect's."""
    Secret(value=SecretStr(SECRET)).save("tea", overwrite=True)
    with caplog.at_level(logging.DEBUG):
        prices.keep(authorization_block="tea")
        prices.endpoint.statuses = {2: [403]}
        with pytest.raises(RefusedError, match="page 2 of .*: 127.0.0.1 answered 403 Forbidden.*; not retried"):
            prices.keep(authorization_block="tea")
    assert prices.authorizations == {SECRET}
    finish_reports()
    assert SECRET not in caplog.text
    assert SECRET not in str(prices.items())
    assert api.is_up()
    assert is_in_database(prices.table_name)
    assert not is_in_database(SECRET)


def test_limits_are_held(prices: Prices) -> None:
    """No more requests than declared are in flight, or sent in a second."""
    prices.endpoint.latency_seconds = 0.1
    prices.keep(fetch_concurrency=2)
    assert prices.endpoint.most_in_flight == 2
    prices.endpoint.latency_seconds = 0.0
    prices.endpoint.times.clear()
    prices.keep(requests_per_second=10)
    first, *_, last = prices.endpoint.times
    assert len(prices.endpoint.times) == 7
    assert last - first > 0.55


def test_key_of_two_fields_is_pk_and_sk(prices: Prices, dynamodb: DynamoDBClient) -> None:
    """Two fields are `pk` and `sk`; records that are gone are deleted, and what begins with # is left alone."""
    prices.keep(key=["whitelisted", "id"])
    other = {"pk": {"S": "#mine"}, "sk": {"S": "note"}}
    dynamodb.put_item(TableName=prices.table_name, Item=other)
    del prices.endpoint.items[:5]
    summary = prices.keep(key=["whitelisted", "id"])
    assert (summary.written, summary.deleted) == (0, 5)
    items = scan_markets(dynamodb, prices.table_name)
    assert items.pop(("#snapshot", "#snapshot"))["state"] == {"S": "complete"}
    assert items.pop(("#mine", "note")) == other
    assert items == {
        key: {"pk": {"S": key[0]}, "sk": {"S": key[1]}, "buy": {"N": str(item["buys"]["unit_price"])}}
        for item in prices.endpoint.items
        for key in [(str(item["whitelisted"]).lower(), str(item["id"]))]
    }
    with pytest.raises(KeySchemaError, match=r"has the key pk \(S\) and sk \(S\), records.key of 1 needs pk \(S\)"):
        prices.keep()


def test_two_items_of_one_key_are_refused(prices: Prices) -> None:
    """Without `values`, two items of one key fail the run, which names the key, and nothing is stored."""
    prices.keep()
    before = prices.items()
    prices.endpoint.items.append(prices.endpoint.items[3] | {"whitelisted": True})
    with pytest.raises(RefusedError, match="two items have the same key, id 30: give records.once_by .*records.values"):
        prices.keep()
    assert prices.items() == before


def test_shrunk_snapshot_is_refused(prices: Prices) -> None:
    """A snapshot that has lost over half of the records is not stored, but with `force`."""
    prices.keep()
    del prices.endpoint.items[20:]
    with pytest.raises(ShrinkError, match="under half of them, 20, would be left.*; if the source is right, run with"):
        prices.keep()
    assert len(prices.items()) == 61
    prices.keep(force=True)
    assert prices.is_exact()


@pytest.mark.parametrize("what", ["another source", "a market", "unknown items"])
def test_table_of_something_else_is_refused(prices: Prices, served: str, what: str, dynamodb: DynamoDBClient) -> None:
    """A table of another source, a market or another program is left alone, but with `force`."""
    if what == "another source":
        prices.url += "?page_size=200"
        prices.keep()
        prices.url = prices.url.partition("?")[0]
    elif what == "a market":
        market_data(SMALL, prices.table_name)
    else:
        with Table(prices.table_name, 1) as table:
            create(table)
        dynamodb.put_item(TableName=prices.table_name, Item={"pk": {"S": "note"}, "text": {"S": "keep me"}})
    before = prices.items()
    message = {
        "another source": "table .* holds http.*page_size=200, not http.*/prices: give each source its own table",
        "a market": f"table .* holds region {SMALL}, not http.*/prices: give each source its own table",
        "unknown items": "table .* has 1 items but no #snapshot of http.*/prices, so they may be",
    }
    with pytest.raises(TableError, match=message[what]):
        prices.keep()
    assert prices.items() == before
    prices.keep(force=True)
    assert prices.is_exact()


def test_market_is_not_stored_over_a_declared_source(prices: Prices, served: str, market: Market) -> None:
    """The flow `market-data` refuses the table of a declared source."""
    prices.keep()
    before = prices.items()
    with pytest.raises(TableError, match=f"table {prices.table_name}: .*item #snapshot is of .*, not of a market"):
        market_data(SMALL, prices.table_name)
    assert prices.items() == before
