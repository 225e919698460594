"""Show a market table in the terminal."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from deployments.local.progress import wrap
from tasks.catalogue.names import find_type, market_name, type_name
from tasks.esi.markets import name_market
from tasks.table.read import Record, read_records
from tasks.table.snapshot import TableSnapshot


def show_table(table_name: str, type_wanted: str, rows: int = 20, market_id: int | None = None) -> None:
    """Print a table's records, those with the highest price times volume first, or only one item type's.

    Raises:
        ValueError: no item type has this name or id, or the table has no record of it.
        TableError: the table cannot be read, or holds no complete snapshot.
    """
    records, snapshot = read_records(table_name, market_id)
    chosen = pick(records, type_wanted, table_name) if type_wanted else records
    first = sorted(chosen.items(), key=lambda row: row[1].price * row[1].volume, reverse=True)[:rows]
    title = wrap(describe_market(snapshot.market_id), f"{table_name}: ", "  ")
    summary = wrap(describe(snapshot, len(records), len(first)))
    print(title, "", *format_rows(first), "", summary, sep="\n", flush=True)  # noqa: T201 (a command's answer)


def describe_market(market_id: int | str) -> str:
    """Return a market as `Jita 4-4 (60003760)`, or `system 30000142` without a name; unchanged if it is not an id."""
    if isinstance(market_id, str):
        return market_id
    name = market_name(market_id)
    return name_market(market_id) if name == str(market_id) else f"{name} ({market_id})"


def pick(records: dict[int, Record], type_wanted: str, table_name: str) -> dict[int, Record]:
    """Return one type's record; raise ValueError if there is no such type, or no record of it."""
    type_id = int(type_wanted) if type_wanted.isdigit() else find_type(type_wanted)
    if type_id is None:
        raise ValueError(f"TYPE is {type_wanted!r}: give an item type's whole name, such as Tritanium, or its id")
    if type_id not in records:
        raise ValueError(f"{table_name} has no record of {type_name(type_id)} ({type_id}): there is no order for it")
    return {type_id: records[type_id]}


def format_rows(records: Sequence[tuple[int, Record]]) -> Iterator[str]:
    """Yield the lines of a table of records; names come last because they may take several lines."""
    rows = [("type", "price (ISK)", "volume", "name")]
    rows += [(str(type_id), f"{one.price:,.2f}", f"{one.volume:,}", type_name(type_id)) for type_id, one in records]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for *numbers, name in rows:
        cells = (f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
        yield wrap(name, f"  {'  '.join(cells)}  ")


def describe(snapshot: TableSnapshot, records: int, shown: int) -> str:
    """Describe what is shown: number of records, time and age of the snapshot, size of the market."""
    age_seconds = (datetime.now(UTC) - snapshot.last_modified).total_seconds()
    return (
        f"{shown:,} of {records:,} records, of {snapshot.last_modified:%Y-%m-%d %H:%M:%S} UTC, {age_seconds:,.0f} s "
        f"old, from {snapshot.orders:,} orders on {snapshot.pages:,} pages "
        f"({snapshot.parameters.order_type}, {snapshot.parameters.price})"
    )
