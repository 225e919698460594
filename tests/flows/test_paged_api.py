"""The flow `paged-api`: the declarations of the docs page, against stand-ins of their APIs."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from flows.paged_api import SourceSummary, paged_api
from tests.support.apis import Endpoint, make_adjusted_prices, make_contracts, make_posts, make_prices, serve_apis
from tests.support.pages import find_blocks
from tests.support.tables import scan

pytestmark = pytest.mark.usefixtures("store_url", "api")

Item = dict[str, Any]


def read_declarations() -> dict[str, dict[str, Any]]:
    """Return the parameters of the page's deployments, by name."""
    blocks = [block for block in find_blocks("docs/another-endpoint.md", "yaml") if "paged_api" in block]
    assert all(len(block.splitlines()) <= 20 for block in blocks)
    found = [msgspec.yaml.decode(block.replace("<<: *market-data\n    ", ""))[0] for block in blocks]
    return {each["name"]: each["parameters"] for each in found}


def run(name: str, url: str, table_name: str, **more: Any) -> SourceSummary:
    """Run a declaration of the page against a stand-in."""
    parameters = read_declarations()[name]
    address = "/".join(["", *parameters["source"]["url"].split("/")[3:]])
    source = parameters["source"] | {"url": url + address}
    summary: SourceSummary = paged_api(source=source, records=parameters["records"], table_name=table_name, **more)
    return summary


def number(value: float) -> dict[str, str]:
    """Return a number as DynamoDB has it."""
    return {"N": format(Decimal(repr(value)).normalize(), "f")}


def contracts_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of public contracts, computed another way."""
    records: dict[str, Item] = {}
    for kind in {item["type"] for item in items}:
        of_kind = [item for item in items if item["type"] == kind]
        prices = [item["price"] for item in of_kind if "price" in item]
        record = {"pk": {"S": kind}, "contracts": number(len(of_kind))}
        record["volume"] = {
            "N": format(sum((Decimal(repr(item["volume"])) for item in of_kind), Decimal(0)).normalize(), "f")
        }
        records[kind] = record | ({"cheapest": number(min(prices))} if prices else {})
    return records


def posts_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of posts."""
    return {
        str(item["id"]): {
            "pk": {"S": str(item["id"])},
            "date_gmt": {"S": item["date_gmt"]},
            "title": {"S": item["title"]["rendered"]},
        }
        for item in items
    }


def prices_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of the trading post."""
    return {
        str(item["id"]): {
            "pk": {"S": str(item["id"])},
            "buy": number(item["buys"]["unit_price"]),
            "sell": number(item["sells"]["unit_price"]),
        }
        for item in items
    }


def adjusted_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of adjusted prices."""
    return {
        str(item["type_id"]): {"pk": {"S": str(item["type_id"])}}
        | {name: number(item[name]) for name in ("adjusted_price", "average_price") if name in item}
        for item in items
    }


CASES: dict[str, tuple[Callable[[], Endpoint], Callable[[list[Item]], dict[str, Item]]]] = {
    "contracts": (make_contracts, contracts_truth),
    "posts": (make_posts, posts_truth),
    "trading-post": (make_prices, prices_truth),
    "adjusted-prices": (make_adjusted_prices, adjusted_truth),
}


def test_each_declaration_of_the_page_has_a_case() -> None:
    """Each deployment of the page is run here."""
    assert read_declarations().keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_declaration_fills_its_table(name: str, table_name: str, dynamodb: DynamoDBClient) -> None:
    """A declaration's table is exact; a second run finds it not modified, or writes nothing; a third what differs."""
    make, make_truth = CASES[name]
    endpoint = make()
    with serve_apis(endpoint) as url:
        summary = run(name, url, table_name)
        items = scan(dynamodb, table_name)
        marker = items.pop("#snapshot")
        assert items == make_truth(endpoint.items)
        assert (summary.items, summary.records, summary.written) == (len(endpoint.items), len(items), len(items))
        assert marker["state"] == {"S": "complete"}
        assert marker["items"] == {"N": str(len(endpoint.items))}
        assert marker["snapshot_header"] == ({"S": "Last-Modified"} if endpoint.is_dated else {"NULL": True})
        requests = len(endpoint.seen)
        again = run(name, url, table_name)
        assert (again.not_modified, again.written) == (endpoint.is_dated, 0)
        assert len(endpoint.seen) - requests == (0 if endpoint.is_dated else summary.pages + 1)
        endpoint.items = endpoint.items[1:]
        endpoint.modified += 300
        third = run(name, url, table_name, force=True)
        items = scan(dynamodb, table_name)
        del items["#snapshot"]
        assert items == make_truth(endpoint.items)
        assert 0 < third.written + third.deleted <= 3
