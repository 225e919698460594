"""Write requests, in DynamoDB's own notation."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    pass


SNAPSHOT_KEY = "#snapshot"
BATCH_ITEMS = 25  # DynamoDB's own limit for BatchWriteItem

Item = dict[str, Any]  # in DynamoDB's own notation: {"pk": {"S": "34"}, "price": {"N": "5.7"}, …}
W = TypeVar("W")


def check_table_name(name: str) -> str:
    """Return `name` back.

    Raises:
        ValueError: DynamoDB takes no such name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", name):
        raise ValueError(f"table_name is {name!r}: give 3 to 255 letters, digits and _ . -")
    return name


def describe_request(request: Item) -> str:
    """Name a write request in messages: `put of 34`."""
    if "PutRequest" in request:
        return f"put of {request['PutRequest']['Item']['pk']['S']}"
    return f"delete of {request['DeleteRequest']['Key']['pk']['S']}"


def put_request(item: Item) -> Item:
    """Return the request that puts an item."""
    return {"PutRequest": {"Item": item}}


def delete_request(pk: str) -> Item:
    """Return the request that deletes the item of a key."""
    return {"DeleteRequest": {"Key": {"pk": {"S": pk}}}}


def with_key(item: Item, pk: str) -> Item:
    """Return an item under another key."""
    return item | {"pk": {"S": pk}}


def add_prefix(request: Item, prefix: str) -> Item:
    """Return the request that puts or delete the item whose key has a prefix."""
    if "PutRequest" in request:
        item = request["PutRequest"]["Item"]
        return put_request(with_key(item, prefix + item["pk"]["S"]))
    return delete_request(prefix + request["DeleteRequest"]["Key"]["pk"]["S"])


def batches(writes: list[W]) -> Iterable[list[W]]:
    """Cut writes into batches of at most 25."""
    return (writes[start : start + BATCH_ITEMS] for start in range(0, len(writes), BATCH_ITEMS))
