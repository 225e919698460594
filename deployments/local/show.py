"""Shows a market table in the terminal."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from tasks.names import find_type, region_name, type_name
from tasks.read_records import Record, read_records
from tasks.table_snapshot import TableSnapshot

ROWS = 20


def show_table(table_name: str, type_wanted: str, rows: int = ROWS) -> None:
    """Prints a table's records, the most traded first: those whose price times volume is the highest.

    Args:
        table_name: of a market table.
        type_wanted: an item type's name or id, to show its record alone; empty for all.
        rows: at most.

    Raises:
        ValueError: there is no such type, or it has no record.
        TableError: the table refused, or holds no whole snapshot.
    """
    records, snapshot = read_records(table_name)
    chosen = pick(records, type_wanted, table_name) if type_wanted else records
    first = sorted(chosen.items(), key=turnover, reverse=True)[:rows]
    title = f"{table_name}: {region_name(snapshot.region_id)} ({snapshot.region_id})"
    Console().print(make_grid(first, title))
    Console().print(describe(snapshot, len(records), len(first)), highlight=False)


def pick(records: dict[str, Record], type_wanted: str, table_name: str) -> dict[str, Record]:
    """Gives one type's record.

    Raises:
        ValueError: there is no such type, or it has no record.
    """
    type_id = int(type_wanted) if type_wanted.isdigit() else find_type(type_wanted)
    if type_id is None:
        raise ValueError(f"TYPE is {type_wanted!r}: give an item type's whole name, such as Tritanium, or its id")
    if str(type_id) not in records:
        raise ValueError(f"{table_name} has no record of {type_name(type_id)} ({type_id}): nobody offers it")
    return {str(type_id): records[str(type_id)]}


def turnover(row: tuple[str, Any]) -> Decimal:
    """Gives price times volume (ISK)."""
    _pk, record = row
    traded: Decimal = record["price"] * record["volume"]
    return traded


def make_grid(records: Iterable[tuple[str, Record]], title: str) -> Grid:
    """Gives the records as a table to print."""
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    grid.add_column("type", justify="right", style="dim")
    grid.add_column("name")
    grid.add_column("price (ISK)", justify="right")
    grid.add_column("volume", justify="right")
    for pk, record in records:
        grid.add_row(pk, type_name(int(pk)), f"{record['price']:,.2f}", f"{record['volume']:,}")
    return grid


def describe(snapshot: TableSnapshot, records: int, shown: int) -> str:
    """Says how much is shown, and of when it is."""
    age_seconds = (datetime.now(UTC) - snapshot.last_modified).total_seconds()
    return (
        f"{shown:,} of {records:,} records, of {snapshot.last_modified:%Y-%m-%d %H:%M:%S} UTC, {age_seconds:,.0f} s "
        f"old, from {snapshot.orders:,} orders on {snapshot.pages:,} pages ({snapshot.order_type}, {snapshot.price})"
    )
