"""A reader of a table that runs write, which must never be given a mix."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal

from tasks.table.client import Table
from tasks.table.errors import TableError
from tasks.table.read import Record, read_whole
from tasks.table.requests import Item
from tests.support.chaos.check import Truth, WrongTableError, comparable, differences
from tests.support.chaos.outcome import Outcome

READ_SECONDS = 0.2  # between two reads: more of them would take the machine from what they watch


@contextmanager
def reading(tables: Sequence[tuple[Table, Truth]], outcome: Outcome) -> Iterator[None]:
    """Read the markets of a table all the while, as their users do.

    Raises:
        WrongTableError: what was read is not the snapshot that it was called.
    """
    done = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not done.wait(READ_SECONDS):
            for table, truth in tables:
                read_one(table, truth)

    def read_one(table: Table, truth: Truth) -> None:
        try:
            records, snapshot = read_whole(table)
        except TableError:
            return
        outcome.reads += 1
        items = {str(type_id): comparable(to_item(type_id, record)) for type_id, record in records.items()}
        if differing := differences(items, truth.named(snapshot)):
            wrong.append(f"market {truth.market_id}: the reader was given {snapshot.last_modified}, but {differing}")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if wrong:
        raise WrongTableError(wrong[0])


def to_item(type_id: int, record: Record) -> Item:
    """Return a record that was read as DynamoDB holds it."""
    item: Item = {"pk": {"S": str(type_id)}}
    item |= {"price": plain(record.price), "volume": plain(Decimal(record.volume))}
    for name, figures in (("buy", record.buy), ("sell", record.sell)):
        if figures is not None:
            item[name] = {"M": {key: plain(number) for key, number in figures.items()}}
    return item


def plain(value: Decimal) -> Item:
    """Return a number in plain digits."""
    digits = f"{value:f}"
    return {"N": digits.rstrip("0").rstrip(".") if "." in digits else digits}
