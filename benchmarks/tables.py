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
from deployments.local.market.market import Market
from tasks.table.snapshot import TableSnapshot
from tests.support.tables import scan
from tests.support.truth import to_number, truth

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
            return scan(self.client, name)
        return {}

    def has_snapshot(self, name: str, region_id: int, modified: int) -> bool:
        """Return whether a table has a region's complete snapshot of a unix time."""
        with suppress(self.client.exceptions.ResourceNotFoundException):
            marker = self.client.get_item(TableName=name, Key={"pk": {"S": SNAPSHOT_KEY}}, ConsistentRead=True)
            return "Item" in marker and is_complete(marker["Item"], region_id, modified)
        return False

    def find_unfinished(self, template: str, region_ids: Iterable[int], modified: int) -> list[int]:
        """Return the regions whose table does not have the complete snapshot of a unix time."""
        names = {region_id: template.format(region_id=region_id) for region_id in region_ids}
        return [region_id for region_id, name in names.items() if not self.has_snapshot(name, region_id, modified)]

    def check(self, template: str, region_ids: Iterable[int], index: int, *, is_whole: bool = True) -> int:
        """Return the number of records in all tables; raise WrongTableError if one is wrong."""
        count = 0
        for region_id in region_ids:
            name = template.format(region_id=region_id)
            records = to_records(self.read(name))
            compare(name, records, true_items(region_id, index), is_whole=is_whole)
            count += len(records)
        return count


@cache
def true_items(region_id: int, index: int) -> Items:
    """Return the exact records of a region's snapshot, from its orders, one at a time."""
    return truth(Market(clock=lambda: float(index * Market.every)), region_id)


def is_complete(marker: Item, region_id: int, modified: int) -> bool:
    """Return whether a marker says that a region's snapshot of a unix time is complete."""
    snapshot = TableSnapshot.from_item(marker)
    return (snapshot.state, snapshot.region_id, snapshot.last_modified.timestamp()) == ("complete", region_id, modified)


def to_records(items: Items) -> Items:
    """Return a table's items without `#snapshot`, with numbers in their shortest notation."""
    return {
        key: {name: to_number(Decimal(of["N"])) if "N" in of else of for name, of in items[key].items()}
        for key in items.keys() - {SNAPSHOT_KEY}
    }


def compare(name: str, items: Items, expected: Items, *, is_whole: bool = True) -> None:
    """Raise WrongTableError if a record is wrong, or missing from a whole table."""
    keys = items.keys() | expected.keys() if is_whole else items.keys()
    if wrong := sorted(key for key in keys if items.get(key) != expected.get(key)):
        key = wrong[0]
        first = f"{key} is {items.get(key)}, expected {expected.get(key)}"
        raise WrongTableError(f"table {name}: {len(wrong)} of {len(expected)} records are wrong; {first}")
