"""Aggregate: one record per item type, from all orders of one snapshot."""

import importlib
import threading
from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from tasks.retries import NOT_KEPT
from tasks.run import Run
from tasks.table.records import Book
from tasks.table.snapshot import Parameters

if TYPE_CHECKING:
    from tasks.orders.columns import Orders


@task(name="Aggregate", task_run_name="Aggregate", **NOT_KEPT)
def aggregate(pages: "list[Orders]", run: Run) -> Book:
    """Return one record per item type; it uses the pages up, as `merge_pages` does."""
    run.report.begin("Aggregate")
    book = make_book(pages, run.parameters)
    get_run_logger().info("%d orders: %d records", book.orders, len(book.records))
    return book


def make_book(pages: "list[Orders]", parameters: Parameters) -> Book:
    """Return one record per item type, and the number of orders on both sides; it uses the pages up."""
    # Not above: pandas takes half a second to import, and most runs find nothing to aggregate.
    from tasks.orders.aggregation import aggregate_orders  # noqa: PLC0415
    from tasks.orders.merge import merge_pages  # noqa: PLC0415

    side = parameters.order_type if parameters.detail == "compact" else "all"
    orders, count = merge_pages(pages, side)
    return Book(aggregate_orders(orders, parameters.order_type, parameters.price, parameters.detail), count)


def import_early() -> None:
    """Import what `make_book` needs while pages are on their way."""
    threading.Thread(target=importlib.import_module, args=["tasks.orders.aggregation"], daemon=True).start()
