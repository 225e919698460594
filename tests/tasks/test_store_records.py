"""Store Records: splitting writes into parts and batches."""

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from tasks.orders.records import Book, Record
from tasks.run import Target, Update
from tasks.store_records import split_writes
from tasks.table.records import Changes


@given(puts=st.integers(0, 9000), deletes=st.integers(0, 40))
def test_every_request_is_in_one_batch(puts: int, deletes: int) -> None:
    """The parts have each write once, in order, at most 25 per batch and 10,000 per part, numbered throughout."""
    changes = Changes([Record(n, 1.0, 1) for n in range(puts)], {}, [f"d{n}" for n in range(deletes)], 0, 0)
    target = cast("Target", None)
    parts = split_writes([Update(target, Book(changes.puts, 0), changes)])
    batches = [batch.writes for part in parts for batch in part.left]
    bounds = [tuple(map(int, part.name.split("-"))) for part in parts]
    assert all(0 < len(batch) <= 25 for batch in batches)
    assert [write for batch in batches for write in batch] == [*changes.puts, *changes.deletes]
    assert [first for first, _last in bounds] == [1, *(last + 1 for _first, last in bounds)][: len(parts)]
    assert all(last - first < 10_000 for first, last in bounds)
    assert [last - first + 1 for first, last in bounds] == [
        sum(len(batch.writes) for batch in part.left) for part in parts
    ]
    assert len(parts) <= 2
