"""Write a report on a table as one self-contained HTML file."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from deployments.local.progress import fail
from deployments.local.show import describe_market
from deployments.status import make_parser
from tasks.catalogue.names import type_name
from tasks.reporting.artifacts import to_data_uri
from tasks.reporting.history import read_history
from tasks.reporting.pictures import RUNS, draw_pictures
from tasks.reporting.summary import Summary, counted
from tasks.table.errors import TableError
from tasks.table.read import Record, read_records
from tasks.table.snapshot import TableSnapshot

MADE_UP = "this project's market stand-in: they are made up"
UNKNOWN = "an unknown market: Prefect has no run for this snapshot"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = make_parser("report", "Write a report on a market table and its last runs as one HTML file.")
    parser.add_argument("--market", type=int, metavar="ID", help="the market, of a table with the key market_type")
    parser.add_argument("--runs", type=read_runs, default=RUNS, metavar="N", help="how many runs to show, 1 to 200")
    parser.add_argument("--made-up", action="store_true", help="say that the orders are the stand-in's, as make does")
    parser.add_argument("--file", type=Path, default=Path("report.html"), metavar="FILE", help="the file to write")
    given = parser.parse_args(arguments)
    try:
        write_report(given.table_name, given.runs, given.file, market_id=given.market, made_up=given.made_up)
    except (TableError, OSError, ValueError, PrefectException) as error:
        return fail(f"no report: {error}")
    return 0


def read_runs(value: str) -> int:
    """Return a number of runs, 1 to 200."""
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 200):
        raise argparse.ArgumentTypeError(f"{value!r}: give 1 to 200")
    return int(value)


def write_report(table_name: str, count: int, file: Path, *, market_id: int | None = None, made_up: bool) -> None:
    """Write the report on a table and its last runs, `count` at most, and print where it is.

    A file of this name is replaced once the report is complete. If the orders are `made_up`, runs with others are left
    out.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is not a regular file, and would be replaced: give the name of a file")
    records, snapshot = read_records(table_name, market_id)
    runs: list[Summary] = []
    if PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            history = read_history(client, snapshot.region_id, table_name, count)
        runs = [run for run in history if market_id in {None, *(each.market_id for each in run.markets)}]
    stored_by = next((run for run in runs if run.last_modified == snapshot.last_modified), None)
    is_made_up = made_up or (stored_by.is_made_up if stored_by else None)
    runs = [run for run in runs if is_made_up in {None, run.is_made_up}]
    source = MADE_UP if made_up else stored_by.source if stored_by else UNKNOWN
    unfinished = file.with_name(f"{file.name}.part")
    unfinished.write_text(render(table_name, records, snapshot, runs, source), encoding="utf-8")
    unfinished.replace(file)
    size = f"{counted(len(records), 'record')}, {counted(len(runs), 'run')}, {file.stat().st_size / 1024:,.0f} KiB"
    print(f"{file}: {size}")  # noqa: T201 (a command's answer)


def render(
    table_name: str, records: dict[int, Record], snapshot: TableSnapshot, runs: Sequence[Summary], source: str = UNKNOWN
) -> str:
    """Return the report as HTML; runs come newest first, `source` says in words where the orders come from."""
    files = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html.jinja").render(
        counted=counted,
        table_name=table_name,
        market=describe_market(snapshot.market_id),
        snapshot=snapshot,
        written_at=datetime.now(UTC),
        rows=[(type_id, type_name(type_id), each.price, each.volume) for type_id, each in sorted(records.items())],
        source=source,
        runs=runs,
        pictures={title: to_data_uri(png) for title, png in draw_pictures(runs).items()} if runs else {},
    )


if __name__ == "__main__":
    sys.exit(main())
