"""How others loop over these pages, so that it can be seen whether the check sees what comes of it."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import pandas as pd

from tasks.esi.answers import Answer
from tasks.esi.client import Esi
from tasks.esi.errors import EsiError
from tasks.esi.markets import find_market
from tasks.orders.aggregation import aggregate_orders, list_records
from tasks.orders.choices import Detail, OrderType, Parameters, Price
from tasks.orders.columns import decode_orders
from tasks.orders.merge import merge_pages
from tasks.table.client import Table
from tasks.table.create import create
from tasks.table.lease import Lease
from tasks.table.records import compare, to_request
from tasks.table.snapshot import TableSnapshot

ATTEMPTS = 3


def give_up_the_rest(esi: Esi, first: Answer, region_id: int) -> Iterable[bytes]:
    """Yield pages until one has failed three times: what came before it is stored."""
    for page in range(1, first.pages + 1):
        try:
            yield get(esi, region_id, page).body
        except EsiError:
            return


def drop_what_failed(esi: Esi, first: Answer, region_id: int) -> Iterable[bytes]:
    """Yield pages except those that have failed three times: their orders count as gone."""
    for page in range(1, first.pages + 1):
        try:
            yield get(esi, region_id, page).body
        except EsiError:
            continue


def mix_generations(esi: Esi, first: Answer, region_id: int) -> Iterable[bytes]:
    """Yield all pages, of whichever snapshot."""
    for page in range(1, first.pages + 1):
        yield get(esi, region_id, page).body


def get(esi: Esi, region_id: int, page: int) -> Answer:
    """Download a page, at the third attempt at the latest."""
    for attempt in range(ATTEMPTS):
        try:
            return esi.get(find_market(region_id).endpoint, page)
        except EsiError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def port(loop: Callable[[Esi, Answer, int], Iterable[bytes]]) -> Callable[..., None]:
    """Make a flow of a loop: what it gives is aggregated and stored as the newest snapshot."""

    def run(
        region_id: int,
        table_name: str,
        order_type: OrderType,
        price: Price,
        detail: Detail,
        fetch_concurrency: int,
    ) -> None:
        with Esi.from_environment(fetch_concurrency) as esi, Table(table_name, 1) as table, Lease(table) as lease:
            if not table_is_there(table):
                create(table)
            first = esi.head(find_market(region_id).endpoint)
            pages = [decode_orders(body, "a page") for body in loop(esi, first, region_id)]
            orders, _count = merge_pages(pages or [decode_orders(b"[]", "no page")])
            store(orders, first, lease, region_id, Parameters(order_type, price, detail))

    return run


def table_is_there(table: Table) -> bool:
    """Return whether the table can be read."""
    try:
        table.read_snapshot()
    except Exception:  # noqa: BLE001
        return False
    return True


def store(orders: pd.DataFrame, first: Answer, lease: Lease, region_id: int, given: Parameters) -> None:
    """Write what differs, and call it complete."""
    records = aggregate_orders(orders, given.order_type, given.price, given.detail)
    lease.wait()
    changes = compare(list_records(records), lease.table.scan())
    for write in changes.writes:
        lease.table.write_batch([to_request(write, lease.table.keys)], lambda: None)
    lease.complete(
        TableSnapshot(
            state="complete",
            market_id=region_id,
            region_id=region_id,
            parameters=given,
            last_modified=first.last_modified,
            expires=first.last_modified,
            etag="",
            pages=first.pages,
            orders=len(orders),
            records=len(records),
            written_at=datetime.now(UTC),
        )
    )


PORTS = {loop.__name__: port(loop) for loop in (give_up_the_rest, drop_what_failed, mix_generations)}
