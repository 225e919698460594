"""The tables of the runs: made, filled with the snapshot before, and compared with the truth."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import msgspec
from botocore.exceptions import EndpointConnectionError

from deployments.local.market.book import make_orders

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import WriteRequestTypeDef

SEED = 1  # the market's own default
SNAPSHOT_KEY = "#snapshot"
LONG_AGO = "2026-01-01T00:00:00Z"

Item = dict[str, Any]


class Record(msgspec.Struct, frozen=True):
    """What a record says, whoever has written it."""

    price: Decimal
    volume: Decimal


Records = dict[str, Record]  # by item type's id


class WrongTableError(Exception):
    """A contestant's table is not what the market's orders say."""


class Tables:
    """Tables of one store."""

    def __init__(self, url: str) -> None:
        self.client: DynamoDBClient = boto3.client(
            "dynamodb",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 (the local store asks for any)
        )

    @contextmanager
    def table(self, items: list[Item] | None = None) -> Iterator[str]:
        """Make a table that holds `items`, return its name, and drop it in the end."""
        name = f"Benchmark-{uuid.uuid4()}"
        self.client.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.fill(name, items or [])
        try:
            yield name
        finally:
            with suppress(EndpointConnectionError):  # the store is gone, and why is said elsewhere
                self.client.delete_table(TableName=name)

    def fill(self, name: str, items: list[Item]) -> None:
        """Write items into a table."""

        def write(start: int) -> None:
            batch: list[WriteRequestTypeDef] = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            self.client.batch_write_item(RequestItems={name: batch})

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, range(0, len(items), 25)))

    def read(self, name: str) -> list[Item]:
        """Return all items of a table."""
        pages = self.client.get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
        return [dict(item) for page in pages for item in page["Items"]]


def check(items: list[Item], truth: Records) -> None:
    """Compare a table's items with the truth.

    Raises:
        WrongTableError: they differ.
    """
    records = to_records(items)
    if wrong := [pk for pk in truth.keys() | records.keys() if truth.get(pk) != records.get(pk)]:
        pk = min(wrong)
        raise WrongTableError(
            f"{len(wrong)} of {len(truth)} records are wrong; {pk} is {records.get(pk)}, expected {truth.get(pk)}"
        )


def to_records(items: list[Item]) -> Records:
    """Return the records among a table's items, without what tells where the table stands."""
    return {
        item["pk"]["S"]: Record(Decimal(item["price"]["N"]), Decimal(item["volume"]["N"]))
        for item in items
        if item["pk"]["S"] != SNAPSHOT_KEY
    }


def grow_old(items: list[Item]) -> list[Item]:
    """Return items as they are when their snapshot has expired, so that a run asks for the next."""
    return [item | {"expires": {"S": LONG_AGO}} if item["pk"]["S"] == SNAPSHOT_KEY else item for item in items]


@cache
def true_records(region_id: int, index: int) -> Records:
    """Return the records of a snapshot by the market's own orders: each type's cheapest sell price, and its volume.

    Args:
        region_id: of the market stand-in.
        index: number of the snapshot.
    """
    orders = make_orders(SEED, region_id, index)
    sells = orders[~orders.is_buy_order].groupby("type_id")
    prices, volumes = sells.price.min(), sells.volume_remain.sum()
    return {str(t): Record(Decimal(str(prices[t])), Decimal(int(volumes[t]))) for t in prices.index}


def count_orders(region_id: int, index: int) -> int:
    """Return the number of orders of a snapshot."""
    return len(make_orders(SEED, region_id, index))
