"""Aggregate: one record per item type, from a snapshot's orders."""

import importlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from tasks.esi.markets import PLACES, Market
from tasks.retries import NOT_KEPT
from tasks.run import Run
from tasks.table.records import Book
from tasks.table.snapshot import Parameters, Snapshot

if TYPE_CHECKING:
    from tasks.orders.columns import Orders


@task(name="Aggregate", task_run_name="Aggregate", **NOT_KEPT)
def aggregate(pages: "list[Orders]", snapshot: Snapshot, run: Run) -> list[Book]:
    """Return each pending market's records, one per item type; the pages are emptied, see `merge_pages`."""
    run.report.begin("Aggregate")
    markets = [target.market for target in run.list_pending(snapshot)]
    books = make_books(pages, markets, run.source, run.parameters)
    for market, book in zip(markets, books, strict=True):
        get_run_logger().info("%s: %d orders: %d records", str(market), book.orders, len(book.records))
    return books


def make_books(pages: "list[Orders]", markets: Sequence[Market], source: Market, parameters: Parameters) -> list[Book]:
    """Return each market's records, one per item type, and its number of orders on both sides.

    Args:
        pages: all of the source's; they are emptied.
        markets: the source itself, or places in it if the pages have `PLACES`.
        source: the region or structure that the pages are from.
        parameters: of the records.
    """
    # pandas takes half a second to import, and most runs have nothing to aggregate.
    from tasks.orders.aggregation import aggregate_orders, select_place  # noqa: PLC0415
    from tasks.orders.merge import merge_pages  # noqa: PLC0415

    side = parameters.order_type if parameters.detail == "compact" else "all"
    places = [None if market == source else (PLACES[market.kind], market.id) for market in markets]
    orders, counts = merge_pages(pages, side, places)
    how = (parameters.order_type, parameters.price, parameters.detail)
    return [
        Book(aggregate_orders(select_place(orders, place), *how), count)
        for place, count in zip(places, counts, strict=True)
    ]


def import_early() -> None:
    """Import what `make_books` needs while pages are in flight."""
    threading.Thread(target=importlib.import_module, args=["tasks.orders.aggregation"], daemon=True).start()
