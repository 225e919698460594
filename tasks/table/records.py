"""Records as items of the table, and how they differ from those that it holds."""

import math
from decimal import Decimal
from typing import Any

import msgspec
import pandas as pd

from tasks.network import Waits
from tasks.table.requests import Item, batches, delete_request, put_request


class Book(msgspec.Struct, frozen=True):
    """What the table will hold, and of how much it was made."""

    records: pd.DataFrame  # see `aggregate_orders`
    orders: int  # of all types and both sides, each counted once


NAMES = ("price", "volume", "buy", "sell")  # a record's attributes; others on its item are somebody else's


def is_type_id(pk: str) -> bool:
    """Return whether a key is an item type's, and so this program's."""
    return pk.isascii() and pk.isdigit()


PARTS = 8  # mapped task runs, about
PART_REQUESTS = (500, 2500)  # at least and at most in each

Row = tuple[Any, ...]  # a record: type_id, price, volume, and with details buy and sell; a tenth of its item's size


class Part(msgspec.Struct):
    """Consecutive write requests that one task run sends. It forgets what is stored, so that a retry sends the rest."""

    first: int  # number of its first request, 1 or more
    last: int  # inclusive
    batches: dict[int, list[Row | str]]  # not yet stored, at most 25 each, by number: rows to put, keys to delete
    failed_at: float = 0.0  # monotonic time; 0 at the first attempt

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @property
    def total(self) -> int:
        """How many requests it has."""
        return self.last - self.first + 1

    @property
    def done(self) -> int:
        """How many of them are stored."""
        return self.total - sum(map(len, list(self.batches.values())))  # a copy: others take batches out meanwhile

    def note_retry(self, waits: Waits) -> None:
        """Add the time since the attempt before, if there was one, to what was waited."""
        if self.failed_at:
            waits.add(self.failed_at)


class Changes(msgspec.Struct, frozen=True):
    """How the table differs from the records that it is to hold."""

    puts: list[Row]  # new or different
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

    def split(self) -> list[Part]:
        """Return the write requests as parts, about `PARTS` of them."""
        writes: list[Row | str] = [*self.puts, *self.deletes]
        least, most = PART_REQUESTS
        size = min(max(least, math.ceil(len(writes) / PARTS)), most)
        parts = [writes[start : start + size] for start in range(0, len(writes), size)]
        return [
            Part(number * size + 1, number * size + len(part), dict(enumerate(batches(part))))
            for number, part in enumerate(parts)
        ]


def list_rows(records: pd.DataFrame) -> list[Row]:
    """Return the records one by one.

    Args:
        records: as `tasks.aggregate.aggregate_orders` gives them.
    """
    columns = [records.index.tolist(), *(records[name].tolist() for name in records.columns)]
    return list(zip(*columns, strict=True))


def to_request(write: Row | str) -> Item:
    """Return the request that puts a record, or delete that of a key."""
    return delete_request(write) if isinstance(write, str) else put_request(to_item(write))


def to_item(row: Row) -> Item:
    """Return a record as the table holds it."""
    type_id, price, volume, *sides = row
    item = {"pk": {"S": str(type_id)}, "price": number(price), "volume": number(volume)}
    item.update(zip(("buy", "sell"), map(number_map, sides), strict=False))
    return item


def number(value: float) -> Item:
    """Return a number as the shortest decimal that is exactly it: 5.7, never 5.7000000000000002 or 5.70."""
    if isinstance(value, int):
        return {"N": str(value)}
    return {"N": format(Decimal(repr(value)).normalize(), "f")}


def number_map(figures: dict[str, float | int]) -> Item:
    """Return a map of numbers."""
    return {"M": {name: number(value) for name, value in figures.items()}}


def compare(rows: list[Row], present: dict[str, Item]) -> Changes:
    """Return what must be written and deleted to make the table's records those of `rows`.

    Args:
        rows: the records that the table is to hold.
        present: the table as it is, by `pk`.
    """
    puts = [row for row in rows if not is_equal(row, present.get(str(row[0])))]
    wanted = {str(row[0]) for row in rows}
    others = [pk for pk in present if pk not in wanted]
    deletes = [pk for pk in others if is_type_id(pk)]
    replaced = {pk: present[pk] for row in puts if (pk := str(row[0])) in present}
    return Changes(puts, replaced, deletes, len(rows) - len(puts), len(others) - len(deletes))


def is_equal(row: Row, other: Item | None) -> bool:
    """Return whether an item has a record's attributes, however a store writes its numbers: 5.70 is 5.7.

    Attributes of others do not count: an older global table adds `aws:rep:updatetime` and more to each item.
    """
    if other is None:
        return False
    ours, present = ({name: item[name] for name in NAMES if name in item} for item in (to_item(row), other))
    return ours == present or read_numbers(ours) == read_numbers(present)


def read_numbers(item: Item) -> Item:
    """Return an item with its numbers as numbers."""
    return {
        name: Decimal(value["N"]) if "N" in value else read_numbers(value["M"]) if "M" in value else value
        for name, value in item.items()
    }
