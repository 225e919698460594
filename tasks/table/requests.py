"""Write requests in DynamoDB's notation."""

import re
from typing import Any

SNAPSHOT_KEY = "#snapshot"
BATCH_ITEMS = 25  # DynamoDB's limit for BatchWriteItem

Item = dict[str, Any]  # in DynamoDB's notation: {"pk": {"S": "34"}, "price": {"N": "5.7"}, …}


def check_table_name(name: str) -> str:
    """Return `name`; raise a ValueError if DynamoDB does not accept it."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", name):
        raise ValueError(f"table_name is {name!r}: give 3 to 255 letters, digits and _ . -")
    return name


def describe_request(request: Item) -> str:
    """Describe a write request for messages: `put of 34`."""
    if "PutRequest" in request:
        return f"put of {name_key(request['PutRequest']['Item'])}"
    return f"delete of {name_key(request['DeleteRequest']['Key'])}"


def name_key(item: Item) -> str:
    """Return an item's key as text: `34`, or `60003760 34`."""
    return " ".join(str(item[name]["S"]) for name in ("pk", "sk") if name in item)
