"""Records as items, and how they differ from the table's."""

from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any

import msgspec

from tasks.orders.records import AnyRecord
from tasks.table.requests import ONE_MARKET, Item, Keys

EXACT = Context(prec=38)  # DynamoDB's digits; the default context rounds to 28


class Changes(msgspec.Struct, frozen=True):
    """How the table differs from the new records."""

    puts: list[Any]  # new or different records
    replaced: dict[str, Item]  # the present items of changed records, by key
    deletes: list[str]  # keys without a record now
    unchanged: int
    foreign: int  # items that are not records; never touched

    @property
    def held(self) -> int:
        """How many records the table has now."""
        return self.unchanged + len(self.replaced) + len(self.deletes)

    @property
    def wanted(self) -> int:
        """How many records it will have."""
        return self.unchanged + len(self.puts)

    @property
    def writes(self) -> list[AnyRecord | str]:
        """Records to put, then keys to delete."""
        return [*self.puts, *self.deletes]


def to_request(write: AnyRecord | str, keys: Keys) -> Item:
    """Return the request that puts a record, or deletes a key's."""
    if isinstance(write, str):
        return {"DeleteRequest": {"Key": keys.make(write)}}
    return {"PutRequest": {"Item": to_item(write, keys)}}


def to_item(record: AnyRecord, keys: Keys) -> Item:
    """Return a record's item."""
    return keys.make(record.name) | to_attributes(record)


def to_attributes(record: AnyRecord) -> Item:
    """Return a record's item without its key."""
    return {name: to_attribute(value) for name, value in record.attributes.items() if value is not None}


def to_attribute(value: Any) -> Item:  # noqa: ANN401 (a record's value, or one of `#snapshot`)
    """Return a value in DynamoDB's notation."""
    if isinstance(value, str):
        return {"S": value}
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, dict):
        return {"M": {name: to_attribute(each) for name, each in value.items()}}
    return number(value)


def number(value: float | Decimal) -> Item:
    """Return a number as the shortest decimal that is exactly it: 5.7, never 5.7000000000000002 or 5.70."""
    text = str(value)  # of a float, the shortest decimal that reads back as it
    if isinstance(value, Decimal) or "e" in text:
        text = format(Decimal(text).normalize(EXACT), "f")
    return {"N": text.removesuffix(".0")}


def compare(records: Sequence[AnyRecord], present: dict[str, Item], keys: Keys = ONE_MARKET) -> Changes:
    """Return the writes that turn the present items, by key, into `records`."""
    named = {record.name: record for record in records}
    changed = {name: new for name, new in named.items() if not is_equal(new, present.get(name), keys)}
    others = [name for name in present if name not in named]
    deletes = [name for name in others if keys.is_record(name)]
    replaced = {name: present[name] for name in changed if name in present}
    return Changes(list(changed.values()), replaced, deletes, len(named) - len(changed), len(others) - len(deletes))


def is_equal(record: AnyRecord, item: Item | None, keys: Keys = ONE_MARKET) -> bool:
    """Return whether an item has a record's attributes; numbers are compared by value: 5.70 is 5.7.

    Attributes of other programs are ignored: an older global table adds `aws:rep:updatetime` and more to each item.
    """
    if item is None:
        return False
    new = to_attributes(record)
    if keys.make(record.name) | new == item:  # most are, and this is the cheapest way to tell
        return True
    present = {name: value for name, value in item.items() if keys.owns(name)}
    return new == present or read_numbers(new) == read_numbers(present)


def read_numbers(item: Item) -> Item:
    """Return an item with its numbers as Decimals."""
    return {
        name: Decimal(value["N"]) if "N" in value else read_numbers(value["M"]) if "M" in value else value
        for name, value in item.items()
    }
