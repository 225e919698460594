"""The tables of the runs: made, filled with the snapshot before, and compared with the market's own orders."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import EndpointConnectionError

from deployments.local.market.book import make_orders
from tasks.table.snapshot import TableSnapshot

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import WriteRequestTypeDef

SEED = 1  # the market's own default
SNAPSHOT_KEY = "#snapshot"

Item = dict[str, Any]
Items = dict[str, Item]  # by key


class WrongTableError(Exception):
    """A table is not what the market's orders say."""


class Tables:
    """Tables of one store."""

    def __init__(self, url: str) -> None:
        keys: Any = dict.fromkeys(
            ("aws_access_key_id", "aws_secret_access_key"), "local"
        )  # the local store asks for any
        self.client: DynamoDBClient = boto3.client("dynamodb", endpoint_url=url, region_name="us-east-1", **keys)

    @contextmanager
    def made(self, items: Mapping[int, Items]) -> Iterator[str]:
        """Make a table a region that holds its items, yield the template of their names, and drop them in the end."""
        template = f"Benchmark-{uuid.uuid4()}-{{region_id}}"
        names = {region_id: template.format(region_id=region_id) for region_id in items}
        for region_id, name in names.items():
            self.client.create_table(
                TableName=name,
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
            self.fill(name, list(items[region_id].values()))
        try:
            yield template
        finally:
            with suppress(EndpointConnectionError):  # the store is gone, and why is said elsewhere
                for name in names.values():
                    self.client.delete_table(TableName=name)

    def fill(self, name: str, items: list[Item]) -> None:
        """Write items into a table."""
        puts: list[WriteRequestTypeDef] = [{"PutRequest": {"Item": item}} for item in items]
        batches = [puts[start : start + 25] for start in range(0, len(puts), 25)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda batch: self.client.batch_write_item(RequestItems={name: batch}), batches))

    def read(self, name: str) -> Items:
        """Return all items of a table."""
        pages = self.client.get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
        return {item["pk"]["S"]: dict(item) for page in pages for item in page["Items"]}

    def list_names(self) -> set[str]:
        """Return the names of all tables."""
        pages = self.client.get_paginator("list_tables").paginate()  # 100 names each
        return {name for page in pages for name in page["TableNames"]}

    def find_unfinished(self, template: str, region_ids: Iterable[int], modified: int) -> list[int]:
        """Return the regions whose table is missing, or does not say that it holds the snapshot of a unix time."""
        present, unfinished, key = self.list_names(), list[int](), {"pk": {"S": SNAPSHOT_KEY}}
        for region_id in region_ids:
            name = template.format(region_id=region_id)
            found = name in present and self.client.get_item(TableName=name, Key=key, ConsistentRead=True).get("Item")
            if not found or not is_complete(found, region_id, modified):
                unfinished.append(region_id)
        return unfinished

    def check(self, template: str, region_ids: Iterable[int], index: int, unfinished: Iterable[int] = ()) -> int:
        """Return how many records all tables hold, or raise unless each is true, and whole if it is not unfinished."""
        present, count = self.list_names(), 0
        for region_id in region_ids:
            name = template.format(region_id=region_id)
            records = to_records(self.read(name)) if name in present else {}
            compare(name, records, true_items(region_id, index), is_whole=region_id not in unfinished)
            count += len(records)
        return count


def is_complete(item: Item, region_id: int, modified: int) -> bool:
    """Return whether `#snapshot` says that a table holds the whole snapshot of a region."""
    snapshot = TableSnapshot.from_item(item)
    return (snapshot.state, snapshot.region_id, snapshot.last_modified.timestamp()) == ("complete", region_id, modified)


def to_records(items: Items) -> Items:
    """Return the records among a table's items, their numbers in DynamoDB's notation, whatever the store kept."""
    return {
        key: {name: {"N": to_digits(Decimal(of["N"]))} if "N" in of else of for name, of in items[key].items()}
        for key in items.keys() - {SNAPSHOT_KEY}
    }


def compare(name: str, items: Items, truth: Items, *, is_whole: bool = True) -> None:
    """Raise WrongTableError if a table's records differ from the truth, all of which must be there if it is whole."""
    keys = items.keys() | truth.keys() if is_whole else items.keys()
    if wrong := sorted(key for key in keys if items.get(key) != truth.get(key)):
        key = wrong[0]
        first = f"{key} is {items.get(key)}, expected {truth.get(key)}"
        raise WrongTableError(f"table {name}: {len(wrong)} of {len(truth)} records are wrong; {first}")


def expire(items: Items) -> Items:
    """Return items as they are when their snapshot has expired, so that a run asks for the next."""
    return {
        key: item | {"expires": {"S": "2026-01-01T00:00:00Z"}} if key == SNAPSHOT_KEY else item
        for key, item in items.items()
    }


@cache
def true_items(region_id: int, index: int) -> Items:
    """Return the records that a region's table is to hold of a snapshot, exact and in DynamoDB's notation."""
    orders = make_orders(SEED, region_id, index)[["type_id", "price", "volume_remain", "is_buy_order"]]
    return add_up(orders.itertuples(index=False, name=None))


def add_up(orders: Iterable[tuple[int, float, int, bool]]) -> Items:  # type, price, volume, whether it is to buy
    """Return each type's cheapest sell price, and the volume for sale, added up one order at a time."""
    prices: dict[int, float] = {}
    volumes: dict[int, int] = {}
    for type_id, price, volume, is_buy_order in orders:
        if not is_buy_order:
            prices[type_id] = min(price, prices.get(type_id, price))
            volumes[type_id] = volumes.get(type_id, 0) + volume
    numbers = {
        str(type_id): (to_digits(Decimal(repr(price))), str(volumes[type_id])) for type_id, price in prices.items()
    }
    return {pk: {"pk": {"S": pk}, "price": {"N": price}, "volume": {"N": n}} for pk, (price, n) in numbers.items()}


def to_digits(number: Decimal) -> str:
    """Return the shortest exact digits of a number, without zeros that say nothing."""
    digits = f"{number:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
