"""Fetch Pages: a chunk's pages, downloaded side by side, decoded straight into the columns that count."""

import time
from collections.abc import Iterator, Sequence
from mmap import mmap
from operator import attrgetter
from typing import Annotated, cast

import msgspec
import numpy as np
from prefect import task
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.transactions import get_transaction

from tasks.build_iterator import Chunk, Orders
from tasks.esi.client import Answer, Esi, NotFoundError, RefusedError, TransientError, decode, name_market
from tasks.get_page_count import Snapshot
from tasks.kept_pages import keep_pages
from tasks.retries import RETRIED


class Order(msgspec.Struct, gc=False):
    """What the records need of an order; ESI's other seven fields are skipped while decoding."""

    order_id: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    type_id: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    price: Annotated[float, msgspec.Meta(ge=0.01, le=1e15)]  # ISK, two decimals; the game's own limit is 9.2e14
    volume_remain: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # units
    is_buy_order: bool


MAX_SNAPSHOTS = 3
COARSE_ISK = 2.0**45  # from here on a float's own digits are no finer than cents

DTYPES = {"order_id": "int64", "type_id": "int64", "price": "float64", "volume_remain": "int64", "is_buy_order": "bool"}


class SnapshotMovedOn(Exception):  # noqa: N818 (no error: the run starts over)
    """A page belongs to a newer snapshot than the one that is being fetched."""


@task(name="Fetch Pages", task_run_name="Fetch Pages {chunk}", **RETRIED, **keep_pages())
def fetch_pages(chunk: Chunk, snapshot: Snapshot, esi: Esi) -> Orders:
    """Gives a chunk's orders, `DTYPES`; nothing, in a state named `MovedOn`, if the snapshot has moved on."""
    try:
        fetch_missing(chunk, snapshot, esi)
    except SnapshotMovedOn as news:
        if transaction := get_transaction():
            transaction.write_on_commit = False  # there is nothing to keep
        return cast("Orders", Completed(name="MovedOn", message=str(news)))  # which Prefect unwraps to None
    orders = join_pages([chunk.fetched.pop(page) for page in sorted(chunk.fetched)])
    get_run_logger().debug("pages %s: %d orders", chunk, len(orders["order_id"]))
    return orders


def fetch_missing(chunk: Chunk, snapshot: Snapshot, esi: Esi) -> None:
    """Fetches the pages that the chunk does not have yet, and keeps all that come even if one fails.

    Raises:
        SnapshotMovedOn: a page belongs to a newer snapshot.
        RefusedError: a page will not come by asking again.
        TransientError: a page did not come this time.
    """
    chunk.note_retry(esi.waits)
    esi.expect(len(chunk.missing()))
    futures = {page: esi.submit(fetch_page, page, snapshot, esi) for page in chunk.missing()}
    failed: list[TransientError] = []
    try:
        for page, future in futures.items():  # not as_completed: it waits for ever for what a closing client cancels
            try:
                chunk.fetched[page] = future.result()
                chunk.done = len(chunk.fetched)
            except TransientError as error:
                failed.append(error)
    except RefusedError as error:
        esi.give_up(error)
        raise
    finally:
        for future in futures.values():
            future.cancel()
    if failed:
        chunk.failed_at = time.monotonic()
        raise failed[0]


def fetch_page(page: int, snapshot: Snapshot, esi: Esi) -> Orders:
    """Downloads one page of a snapshot and gives its orders, as `decode_orders` does.

    Raises:
        SnapshotMovedOn: the page, or a region with fewer pages, belongs to a newer snapshot.
        RefusedError: the answer is wrong and will stay so.
        TransientError: the answer may be right next time.
    """
    what = f"page {page} of {name_market(snapshot.region_id)}"
    try:
        answer = esi.get(snapshot.region_id, page)
    except NotFoundError as error:
        check_same_snapshot(esi.head(snapshot.region_id), snapshot, what)
        kind = name_market(snapshot.region_id).split()[0]
        raise RefusedError(
            f"{error}, though the {kind} has {snapshot.pages} pages of the same snapshot; nothing was stored, the next "
            "run asks again"
        ) from error
    try:
        check_same_snapshot(answer, snapshot, what)
        return decode_orders(answer.body, what)
    except TransientError as error:
        esi.count_failure(page, error.cause)
        raise


def check_same_snapshot(answer: Answer, snapshot: Snapshot, what: str) -> None:
    """Raises unless an answer belongs to `snapshot`.

    Raises:
        SnapshotMovedOn: it is newer, or has another number of pages.
        TransientError: it is older, from a cache that has not caught up.
    """
    if answer.last_modified < snapshot.last_modified:
        raise TransientError(
            f"{what} is of {answer.last_modified}, older than the snapshot of {snapshot.last_modified}",
            cause="older snapshot",
        )
    if answer.last_modified > snapshot.last_modified or answer.pages not in {0, snapshot.pages}:
        raise SnapshotMovedOn(
            f"{what} is of {answer.last_modified}, {answer.pages} pages; "
            f"the snapshot was of {snapshot.last_modified}, {snapshot.pages} pages"
        )


def decode_orders(body: bytes, what: str) -> Orders:
    """Decode and validate a page's JSON in one step.

    Returns:
        Arrays of `DTYPES`, one value an order each, in ESI's order. Empty if the page is `[]`.

    Raises:
        TransientError: the body is no JSON, or ESI's error.
        RefusedError: an order lacks a field, or a value is of the wrong type or out of bounds.
    """
    orders = decode(body, list[Order], what)
    columns = {name: np.fromiter(map(attrgetter(name), orders), dtype, len(orders)) for name, dtype in DTYPES.items()}
    price, volume = columns["price"], columns["volume_remain"]
    uneven = price[(np.rint(price * 100) / 100 != price) & (price < COARSE_ISK)]
    if len(uneven):
        raise RefusedError(f"{what}: the price {uneven[0]} has more than two decimals; nothing was stored")
    is_left = slice(None) if volume.all() else volume > 0
    return {name: concatenate([column[is_left]]) for name, column in columns.items()}


def join_pages(pages: list[Orders]) -> Orders:
    """Gives the orders of several pages, one after the other."""
    return {name: concatenate([page[name] for page in pages]) for name in DTYPES}


def concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    """Joins arrays of one dtype, in memory that the system gets back with the array: glibc keeps what it has freed."""
    count, dtype = sum(map(len, arrays)), arrays[0].dtype
    memory = mmap(-1, max(1, count * dtype.itemsize))
    return np.concatenate(arrays, out=np.frombuffer(memory, dtype, count))


def is_whole(chunks: Sequence[Orders | None]) -> bool:
    """Tells whether all chunks are there; one that found the snapshot to have moved on gives nothing."""
    return all(orders is not None for orders in chunks)


def offers() -> Iterator[int]:
    """Counts the snapshots that a run may begin to fetch.

    Raises:
        TransientError: each of them moved on before its last page was there.
    """
    yield from range(1, MAX_SNAPSHOTS + 1)
    raise TransientError(
        f"{MAX_SNAPSHOTS} snapshots moved on while their pages were fetched, as the task runs in state MovedOn say: "
        "nothing was stored, the next run tries again; if it happens again, raise fetch_concurrency"
    )
