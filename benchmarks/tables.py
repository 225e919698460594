"""The runs' tables: created with the previous snapshot, and compared with the market's own orders."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import EndpointConnectionError
from mypy_boto3_dynamodb import DynamoDBClient

from benchmarks.plain import split, store
from deployments.local.market.book import make_orders
from tasks.table.snapshot import TableSnapshot

SEED = 1  # the market stand-in's default
SNAPSHOT_KEY = "#snapshot"

Item = dict[str, Any]
Items = dict[str, Item]  # by key


class WrongTableError(Exception):
    """A table does not match the market's orders."""


class Tables:
    """The tables of a local store."""

    def __init__(self, url: str) -> None:
        keys: Any = dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "local")
        self.client: DynamoDBClient = boto3.client("dynamodb", endpoint_url=url, region_name="us-east-1", **keys)

    @contextmanager
    def create(self, items: Mapping[int, Items]) -> Iterator[str]:
        """Create a table with items for each region, yield the template of their names, and delete them at the end."""
        template = f"Benchmark-{uuid.uuid4()}-{{region_id}}"
        names = {region_id: template.format(region_id=region_id) for region_id in items}
        for region_id, name in names.items():
            self.client.create_table(
                TableName=name,
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
            store(self.client, split([{"PutRequest": {"Item": item}} for item in items[region_id].values()]), name)
        try:
            yield template
        finally:
            with suppress(EndpointConnectionError):  # the store has ended, which is reported elsewhere
                for name in names.values():
                    self.client.delete_table(TableName=name)

    def read(self, name: str) -> Items:
        """Return a table's items, none if it does not exist."""
        with suppress(self.client.exceptions.ResourceNotFoundException):
            pages = self.client.get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
            return {item["pk"]["S"]: dict(item) for page in pages for item in page["Items"]}
        return {}

    def read_marker(self, name: str) -> Item | None:
        """Return a table's item `#snapshot`, None without it or without the table."""
        with suppress(self.client.exceptions.ResourceNotFoundException):
            return self.client.get_item(TableName=name, Key={"pk": {"S": SNAPSHOT_KEY}}, ConsistentRead=True).get(
                "Item"
            )
        return None

    def find_unfinished(self, template: str, region_ids: Iterable[int], modified: int) -> list[int]:
        """Return the regions whose table does not have the complete snapshot of a unix time."""
        markers = {region_id: self.read_marker(template.format(region_id=region_id)) for region_id in region_ids}
        return [region_id for region_id, marker in markers.items() if not is_complete(marker, region_id, modified)]

    def check(self, template: str, region_ids: Iterable[int], index: int, *, is_whole: bool = True) -> int:
        """Return the number of records in all tables; raise WrongTableError if one is wrong."""
        count = 0
        for region_id in region_ids:
            name = template.format(region_id=region_id)
            records = to_records(self.read(name))
            compare(name, records, true_items(region_id, index), is_whole=is_whole)
            count += len(records)
        return count


def is_complete(marker: Item | None, region_id: int, modified: int) -> bool:
    """Return whether a marker says that a region's snapshot of a unix time is complete."""
    if marker is None:
        return False
    snapshot = TableSnapshot.from_item(marker)
    return (snapshot.state, snapshot.region_id, snapshot.last_modified.timestamp()) == ("complete", region_id, modified)


def to_records(items: Items) -> Items:
    """Return a table's items without `#snapshot`, with numbers in their shortest notation."""
    return {
        key: {name: {"N": to_digits(Decimal(of["N"]))} if "N" in of else of for name, of in items[key].items()}
        for key in items.keys() - {SNAPSHOT_KEY}
    }


def compare(name: str, items: Items, truth: Items, *, is_whole: bool = True) -> None:
    """Raise WrongTableError if a record is wrong, or missing from a whole table."""
    keys = items.keys() | truth.keys() if is_whole else items.keys()
    if wrong := sorted(key for key in keys if items.get(key) != truth.get(key)):
        key = wrong[0]
        first = f"{key} is {items.get(key)}, expected {truth.get(key)}"
        raise WrongTableError(f"table {name}: {len(wrong)} of {len(truth)} records are wrong; {first}")


@cache
def true_items(region_id: int, index: int) -> Items:
    """Return the exact records of a region's snapshot."""
    orders = make_orders(SEED, region_id, index)[["type_id", "price", "volume_remain", "is_buy_order"]]
    return add_up(orders.itertuples(index=False, name=None))


def add_up(orders: Iterable[tuple[int, float, int, bool]]) -> Items:  # type, price, volume, is_buy_order
    """Return each type's lowest sell price and total sell volume, from one order at a time."""
    prices: dict[int, float] = {}
    volumes: dict[int, int] = {}
    for type_id, price, volume, is_buy_order in orders:
        if not is_buy_order:
            prices[type_id] = min(price, prices.get(type_id, price))
            volumes[type_id] = volumes.get(type_id, 0) + volume
    return {
        str(t): {"pk": {"S": str(t)}, "price": {"N": to_digits(Decimal(repr(price)))}, "volume": {"N": str(volumes[t])}}
        for t, price in prices.items()
    }


def to_digits(number: Decimal) -> str:
    """Return a number without an exponent or trailing zeros."""
    digits = f"{number:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
