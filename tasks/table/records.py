"""Records as items of the table, and how they differ from those that it holds."""

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tasks.table.keys import Keys
from tasks.table.requests import Item, delete_request, put_request

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("price", "volume", "buy", "sell")  # a record's attributes; others on its item are somebody else's

Figures = dict[str, float | int]  # of one side's orders, by name


class Record(NamedTuple):
    """An item type's record; a tenth of the size of its item."""

    type_id: int
    price: float  # ISK
    volume: int  # units
    buy: Figures | None = None  # with details: of each side, empty if it has no orders
    sell: Figures | None = None


class Book(msgspec.Struct, frozen=True):
    """What the table is to hold, and how many orders it was made of."""

    records: "pd.DataFrame"  # see `aggregate_orders`
    orders: int  # of all types and both sides, each counted once


class Changes(msgspec.Struct, frozen=True):
    """How the table differs from the records that it is to hold."""

    puts: list[Record]  # new or different
    replaced: dict[str, Item]  # what the table holds instead, by `pk`, of those that differ
    deletes: list[str]  # keys of types that are gone
    unchanged: int
    foreign: int  # items that are no type's; never touched

    @property
    def held(self) -> int:
        """How many records the table holds now."""
        return self.unchanged + len(self.replaced) + len(self.deletes)

    @property
    def wanted(self) -> int:
        """How many it is to hold."""
        return self.unchanged + len(self.puts)

    @property
    def writes(self) -> list[Record | str]:
        """What has to be written: records to put, then keys of types to delete."""
        return [*self.puts, *self.deletes]


def is_type_id(name: str) -> bool:
    """Return whether a key is an item type's, and so this program's."""
    return name.isascii() and name.isdigit()


def list_records(records: "pd.DataFrame") -> list[Record]:
    """Return the rows of a frame as records.

    Args:
        records: as `tasks.aggregate.aggregate_orders` gives them.
    """
    columns = [records.index.tolist(), *(records[name].tolist() for name in records.columns)]
    return list(map(Record._make, zip(*columns, *[[None] * len(records)] * (5 - len(columns)), strict=True)))


def to_request(write: Record | str, keys: Keys) -> Item:
    """Return the request that puts a record, or deletes the one of an item type."""
    return delete_request(keys.make(write)) if isinstance(write, str) else put_request(to_item(write, keys))


def to_item(record: Record, keys: Keys) -> Item:
    """Return a record as the table holds it."""
    return keys.make(str(record.type_id)) | to_attributes(record)


def to_attributes(record: Record) -> Item:
    """Return a record as the table holds it, without its key."""
    attributes = {"price": number(record.price), "volume": number(record.volume)}
    if record.buy is not None and record.sell is not None:
        attributes |= {"buy": number_map(record.buy), "sell": number_map(record.sell)}
    return attributes


def number(value: float) -> Item:
    """Return a number as the shortest decimal that is exactly it: 5.7, never 5.7000000000000002 or 5.70."""
    if isinstance(value, int):
        return {"N": str(value)}
    return {"N": format(Decimal(repr(value)).normalize(), "f")}


def number_map(figures: Figures) -> Item:
    """Return a map of numbers."""
    return {"M": {name: number(value) for name, value in figures.items()}}


def compare(records: list[Record], present: dict[str, Item]) -> Changes:
    """Return what must be written and deleted to make the table hold `records`.

    Args:
        records: what the table is to hold.
        present: its items, by item type.
    """
    puts = [record for record in records if not is_equal(record, present.get(str(record.type_id)))]
    wanted = {str(record.type_id) for record in records}
    others = [name for name in present if name not in wanted]
    deletes = [name for name in others if is_type_id(name)]
    replaced = {name: present[name] for record in puts if (name := str(record.type_id)) in present}
    return Changes(puts, replaced, deletes, len(records) - len(puts), len(others) - len(deletes))


def is_equal(record: Record, item: Item | None) -> bool:
    """Return whether an item has a record's attributes, however a store writes its numbers: 5.70 is 5.7.

    Attributes of others do not count: an older global table adds `aws:rep:updatetime` and more to each item.
    """
    if item is None:
        return False
    ours, present = to_attributes(record), {name: item[name] for name in NAMES if name in item}
    return ours == present or read_numbers(ours) == read_numbers(present)


def read_numbers(item: Item) -> Item:
    """Return an item with its numbers as numbers."""
    return {
        name: Decimal(value["N"]) if "N" in value else read_numbers(value["M"]) if "M" in value else value
        for name, value in item.items()
    }
