"""A reader of a table that runs write, which must never be given a mix."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tasks.table.client import Table
from tasks.table.errors import TableError
from tasks.table.read import read_whole
from tests.support.chaos.check import Truth, WrongTableError, comparable, differences
from tests.support.chaos.outcome import Outcome
from tests.support.truth import to_item

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
        items = {str(type_id): comparable(to_item(str(type_id), record)) for type_id, record in records.items()}
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
