"""What a table holds, and tables whose time has passed."""

from datetime import UTC, datetime, timedelta

import msgspec
from mypy_boto3_dynamodb import DynamoDBClient

from tasks.orders.choices import Parameters
from tasks.orders.records import Record
from tasks.table.requests import Item
from tasks.table.snapshot import Marker, TableSnapshot


def scan(dynamodb: DynamoDBClient, table_name: str) -> dict[str, Item]:
    """Return all of a table by `pk`, as a reader sees it."""
    pages = dynamodb.get_paginator("scan").paginate(TableName=table_name, ConsistentRead=True)
    return {item["pk"]["S"]: dict(item) for page in pages for item in page["Items"]}


def records(items: dict[str, Item]) -> dict[str, Item]:
    """Return a table's items without `#snapshot`."""
    return {pk: item for pk, item in items.items() if not pk.startswith("#")}


def scan_markets(dynamodb: DynamoDBClient, table_name: str) -> dict[tuple[str, str], Item]:
    """Return all of a table of many markets by `pk` and `sk`, as a reader sees it."""
    pages = dynamodb.get_paginator("scan").paginate(TableName=table_name, ConsistentRead=True)
    return {(item["pk"]["S"], item["sk"]["S"]): dict(item) for page in pages for item in page["Items"]}


def expire(dynamodb: DynamoDBClient, table_name: str, pk: str = "#snapshot", sk: str = "") -> None:
    """Let time pass: the stored snapshot's `expires` is over."""
    dynamodb.update_item(
        TableName=table_name,
        Key={"pk": {"S": pk}} | ({"sk": {"S": sk}} if sk else {}),
        UpdateExpression="SET expires = :past",
        ExpressionAttributeValues={":past": {"S": "2020-01-01T00:00:00Z"}},
    )


def inflate(dynamodb: DynamoDBClient, table_name: str) -> None:
    """Make a table hold more than twice as many records, of a snapshot that has expired."""
    items = scan(dynamodb, table_name)
    for number, item in enumerate(items.values()):
        dynamodb.put_item(TableName=table_name, Item=item | {"pk": {"S": str(10_000_000 + number)}})
    snapshot = items["#snapshot"]
    dynamodb.put_item(TableName=table_name, Item=snapshot | {"expires": snapshot["last_modified"]})


NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
STORED = TableSnapshot(
    state="complete",
    market_id=10000002,
    region_id=10000002,
    parameters=Parameters("sell", "min", "compact"),
    last_modified=NOON,
    expires=NOON + timedelta(minutes=5),
    etag='"a"',
    pages=433,
    orders=432_509,
    records=16_853,
    written_at=NOON,
)


def items(table: dict[str, int]) -> dict[str, Item]:
    """Return a small table as DynamoDB holds it."""
    return {pk: {"pk": {"S": pk}, "price": {"N": str(price)}, "volume": {"N": "1"}} for pk, price in table.items()}


def rows(records: dict[int, int]) -> list[Record]:
    """Return records as `list_records` does."""
    return [Record(type_id, float(price), 1) for type_id, price in records.items()]


def fill_in(blank: Marker, index: int, state: str, records: int, owner: str) -> Item:
    """Return an item `#snapshot` of a snapshot's number, of two pages and fifty orders or other items."""
    modified = datetime.fromtimestamp(index * 300, UTC)
    return msgspec.structs.replace(
        blank,
        orders=50,
        state="complete" if state == "complete" else "writing",
        last_modified=modified,
        expires=modified,
        pages=2,
        records=records,
        written_at=modified,
        owner=owner,
        lease=3,
    ).to_item()
