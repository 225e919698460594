"""Items, their keys and write requests, in DynamoDB's notation."""

import json
import re
from typing import Any

import msgspec

SNAPSHOT_KEY = "#snapshot"
ATTRIBUTES = ("price", "volume", "buy", "sell")  # of a market's records; others belong to other programs
BATCH_ITEMS = 25  # DynamoDB's limit for BatchWriteItem

Item = dict[str, Any]  # in DynamoDB's notation: {"pk": {"S": "34"}, "price": {"N": "5.7"}, …}


class Keys(msgspec.Struct, frozen=True):
    """The keys of one market's items.

    With key `type` the table has one market: the partition key `pk` is the item type's id. With `market_type` it has
    any number: `pk` is the market's id, and the sort key `sk` the item type's.
    """

    market_id: int | None = None  # None for key `type`

    @property
    def definition(self) -> dict[str, list[Item]]:
        """The table's keys, as CreateTable takes them."""
        kinds = {"pk": "HASH", "sk": "RANGE"}
        return {
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in self.snapshot],
            "KeySchema": [{"AttributeName": name, "KeyType": kinds[name]} for name in self.snapshot],
        }

    @property
    def snapshot(self) -> Item:
        """The key of the item `#snapshot`."""
        return self.make(SNAPSHOT_KEY)

    def make(self, name: str) -> Item:
        """Return the key of an item type's record."""
        if self.market_id:
            return {"pk": {"S": str(self.market_id)}, "sk": {"S": name}}
        return {"pk": {"S": name}}

    def read(self, item: Item) -> str:
        """Return the item type's id in an item's key, or whatever else is there."""
        return str(item["sk" if self.market_id else "pk"]["S"])

    def is_record(self, name: str) -> bool:
        """Return whether a key is an item type's id, so that the item is a record."""
        return name.isascii() and name.isdigit()

    def owns(self, attribute: str) -> bool:
        """Return whether an attribute belongs to a record."""
        return attribute in ATTRIBUTES

    @property
    def parameter(self) -> str:
        """The parameter that chooses these keys, for messages."""
        return f"key={'market_type' if self.market_id else 'type'!r}"

    def __str__(self) -> str:
        return " and ".join(f"{name} (S)" for name in self.snapshot)


class ItemKeys(Keys, frozen=True):
    """The keys of records by declaration: `pk`, or `pk` and `sk`, whose name is a JSON array of both."""

    is_pair: bool = False

    @property
    def snapshot(self) -> Item:
        """The key of the item `#snapshot`."""
        return {name: {"S": SNAPSHOT_KEY} for name in (["pk", "sk"] if self.is_pair else ["pk"])}

    def make(self, name: str) -> Item:
        """Return the key of a record."""
        if self.is_pair:
            first, second = json.loads(name)
            return {"pk": {"S": first}, "sk": {"S": second}}
        return {"pk": {"S": name}}

    def read(self, item: Item) -> str:
        """Return the name of an item's key."""
        first = str(item["pk"]["S"])
        return json.dumps([first, str(item["sk"]["S"])], ensure_ascii=False) if self.is_pair else first

    def is_record(self, name: str) -> bool:
        """Return whether a key is a record's: no part of it begins with #."""
        return not any(part.startswith("#") for part in (json.loads(name) if self.is_pair else [name]))

    def owns(self, attribute: str) -> bool:
        """Return whether an attribute belongs to a record: all but the key, and what DynamoDB adds."""
        return attribute not in {"pk", "sk"} and not attribute.startswith("aws:")

    @property
    def parameter(self) -> str:
        """The parameter that chooses these keys, for messages."""
        return f"records.key of {2 if self.is_pair else 1}"


ONE_MARKET = Keys()


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
