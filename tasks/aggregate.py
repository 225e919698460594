"""Aggregate: a snapshot's items to records, one per item type of a market."""

from typing import Any

from prefect import task

from tasks.orders.records import Book
from tasks.retries import NOT_KEPT
from tasks.run import Columns, Run
from tasks.table.snapshot import Snapshot


@task(name="Aggregate", task_run_name="Aggregate", **NOT_KEPT)
def aggregate(pages: list[Columns], snapshot: Snapshot, run: Run[Any]) -> list[Book]:
    """Return each pending target's records; the pages may be emptied, to save memory."""
    run.report.begin("Aggregate")
    books = run.source.make_books(pages, snapshot.pending)
    for target, book in zip(run.list_pending(snapshot), books, strict=True):
        run.log.info("%s: %d items: %d records", target.name, book.orders, len(book.records))
    return books
