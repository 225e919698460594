"""Shows a market table in the terminal."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from deployments.local.market.names import find_type, region_name, type_name
from tasks.table import Item, Table
from tasks.table_snapshot import TableSnapshot

ROWS = 20


def show_table(table: Table, type_wanted: str, rows: int = ROWS) -> None:
    """Prints a table's records, the most traded first: those whose price times volume is the highest.

    Args:
        table: a market table.
        type_wanted: an item type's name or id, to show its record alone; empty for all.
        rows: at most.

    Raises:
        ValueError: there is no such type, or it has no record.
        TableError: the table refused.
    """
    item = table.read_snapshot()
    snapshot = TableSnapshot.from_item(item) if item else None
    items = table.scan(snapshot.records if snapshot else 0)
    records = [record for pk, record in items.items() if not pk.startswith("#")]
    if type_wanted:
        records = [pick(items, type_wanted, table.name)]
    title = f"{table.name}: {region_name(snapshot.region_id)} ({snapshot.region_id})" if snapshot else table.name
    Console().print(make_grid(sorted(records, key=turnover, reverse=True)[:rows], title))
    Console().print(describe(snapshot, len(items), len(records), rows), highlight=False)


def pick(items: dict[str, Item], type_wanted: str, table_name: str) -> Item:
    """Gives one type's record.

    Raises:
        ValueError: there is no such type, or it has no record.
    """
    type_id = int(type_wanted) if type_wanted.isdigit() else find_type(type_wanted)
    if type_id is None:
        raise ValueError(f"TYPE is {type_wanted!r}: give an item type's whole name, such as Tritanium, or its id")
    if str(type_id) not in items:
        raise ValueError(f"{table_name} has no record of {type_name(type_id)} ({type_id}): nobody offers it")
    return items[str(type_id)]


def turnover(record: Item) -> Decimal:
    """Gives price times volume (ISK)."""
    return Decimal(record["price"]["N"]) * Decimal(record["volume"]["N"])


def make_grid(records: Iterable[Item], title: str) -> Grid:
    """Gives the records as a table to print."""
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    grid.add_column("type", justify="right", style="dim")
    grid.add_column("name")
    grid.add_column("price (ISK)", justify="right")
    grid.add_column("volume", justify="right")
    for record in records:
        pk, price, volume = record["pk"]["S"], Decimal(record["price"]["N"]), int(record["volume"]["N"])
        grid.add_row(pk, type_name(int(pk)), f"{price:,.2f}", f"{volume:,}")
    return grid


def describe(snapshot: TableSnapshot | None, records: int, chosen: int, rows: int) -> str:
    """Says how much is shown, and of when it is."""
    shown = f"{min(rows, chosen):,} of {records:,} records"
    if snapshot is None:
        return f"{shown}; no #snapshot tells of when they are"
    age_seconds = (datetime.now(UTC) - snapshot.last_modified).total_seconds()
    return (
        f"{shown}, of {snapshot.last_modified:%Y-%m-%d %H:%M:%S} UTC, {age_seconds:,.0f} s old, {snapshot.state}; "
        f"from {snapshot.orders:,} orders on {snapshot.pages:,} pages ({snapshot.order_type}, {snapshot.price})"
    )
