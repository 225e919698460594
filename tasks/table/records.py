"""Records as items, and how they differ from the table's."""

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tasks.table.keys import Keys
from tasks.table.requests import Item, delete_request, put_request

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("price", "volume", "buy", "sell")  # a record's attributes; others on its item belong to other programs

Figures = dict[str, float | int]  # of one side's orders, by name


class Record(NamedTuple):
    """An item type's record, at a tenth of its item's memory."""

    type_id: int
    price: float  # ISK
    volume: int  # units
    buy: Figures | None = None  # with details: a side's figures, empty if it has no orders
    sell: Figures | None = None


class Book(msgspec.Struct, frozen=True):
    """A market's records, and the number of orders behind them."""

    records: "pd.DataFrame"  # see `aggregate_orders`
    orders: int  # on both sides, each counted once


class Changes(msgspec.Struct, frozen=True):
    """How the table differs from the new records."""

    puts: list[Record]  # new or different
    replaced: dict[str, Item]  # the present items of changed records, by item type
    deletes: list[str]  # item types without orders now
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
    def writes(self) -> list[Record | str]:
        """Records to put, then item types to delete."""
        return [*self.puts, *self.deletes]


def is_type_id(name: str) -> bool:
    """Return whether a key is an item type's id, so that the item is a record."""
    return name.isascii() and name.isdigit()


def list_records(records: "pd.DataFrame") -> list[Record]:
    """Return the rows of a frame as records.

    Args:
        records: as `aggregate_orders` returns them.
    """
    columns = [records.index.tolist(), *(records[name].tolist() for name in records.columns)]
    return list(map(Record._make, zip(*columns, *[[None] * len(records)] * (5 - len(columns)), strict=True)))


def to_request(write: Record | str, keys: Keys) -> Item:
    """Return the request that puts a record, or deletes an item type's."""
    return delete_request(keys.make(write)) if isinstance(write, str) else put_request(to_item(write, keys))


def to_item(record: Record, keys: Keys) -> Item:
    """Return a record's item."""
    return keys.make(str(record.type_id)) | to_attributes(record)


def to_attributes(record: Record) -> Item:
    """Return a record's item without its key."""
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
    """Return the writes that turn the present items into `records`.

    Args:
        records: the new ones.
        present: the table's items, by item type.
    """
    puts = [record for record in records if not is_equal(record, present.get(str(record.type_id)))]
    kept = {str(record.type_id) for record in records}
    others = [name for name in present if name not in kept]
    deletes = [name for name in others if is_type_id(name)]
    replaced = {name: present[name] for record in puts if (name := str(record.type_id)) in present}
    return Changes(puts, replaced, deletes, len(records) - len(puts), len(others) - len(deletes))


def is_equal(record: Record, item: Item | None) -> bool:
    """Return whether an item has a record's attributes; numbers are compared by value: 5.70 is 5.7.

    Other attributes are ignored: an older global table adds `aws:rep:updatetime` and more to each item.
    """
    if item is None:
        return False
    new, present = to_attributes(record), {name: item[name] for name in NAMES if name in item}
    return new == present or read_numbers(new) == read_numbers(present)


def read_numbers(item: Item) -> Item:
    """Return an item with its numbers as Decimals."""
    return {
        name: Decimal(value["N"]) if "N" in value else read_numbers(value["M"]) if "M" in value else value
        for name, value in item.items()
    }
