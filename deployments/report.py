"""Write a report of a table, to be sent to somebody: one HTML file that needs nothing but a browser."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from tasks.catalogue.names import region_name, type_name
from tasks.reporting.artifacts import to_data_uri
from tasks.reporting.costs import cost_of_run
from tasks.reporting.history import read_history
from tasks.reporting.pictures import RUNS, draw_pictures
from tasks.reporting.reporter import open_client
from tasks.reporting.summary import Summary, counted
from tasks.table.errors import TableError
from tasks.table.read import Record, read_records
from tasks.table.snapshot import TableSnapshot

TEMPLATE = "report.html.jinja"
MADE_UP = "this project's stand-in for the market: they are made up"
UNKNOWN = "a market that is not known, since Prefect has no run of this snapshot"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m deployments.report",
        description="Writes a report of a market table and its last runs as one HTML file. The table is read where "
        "boto3's settings say, the runs where PREFECT_API_URL says.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--table-name", default="MarketData", metavar="NAME", help="the table")
    parser.add_argument("--runs", type=read_runs, default=RUNS, metavar="N", help="of the last runs, 1 to 200")
    parser.add_argument("--made-up", action="store_true", help="say that the orders are the stand-in's, as make does")
    parser.add_argument("--file", type=Path, default=Path("report.html"), metavar="FILE", help="what to write")
    given = parser.parse_args(arguments)
    try:
        write_report(given.table_name, given.runs, given.file, made_up=given.made_up)
    except (TableError, OSError, ValueError, PrefectException) as error:
        print(f"no report: {error}", file=sys.stderr)  # noqa: T201 (a command's answer)
        return 1
    return 0


def read_runs(value: str) -> int:
    """Read a number of runs.

    Raises:
        argparse.ArgumentTypeError: it is none that the report can show.
    """
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 200):
        raise argparse.ArgumentTypeError(f"{value!r}: give 1 to 200")
    return int(value)


def write_report(table_name: str, count: int, file: Path, *, made_up: bool) -> None:
    """Write the report of a table, and print where it is.

    Args:
        table_name: of the table.
        count: of the last runs, at most.
        file: to write; a file that is there is replaced once the new one is whole.
        made_up: the orders are the stand-in's; what real ones did to a table of this name elsewhere is left out.

    Raises:
        TableError: the table holds no whole snapshot, or cannot be read.
        OSError: the file cannot be written.
        ValueError: there is something else of that name, such as a folder or a device.
        PrefectException: Prefect's server refused.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is no regular file, and would be replaced: give the name of a file")
    records, snapshot = read_records(table_name)
    runs: list[Summary] = []
    if PREFECT_API_URL.value():
        with open_client() as client:
            runs = read_history(client, snapshot.region_id, table_name, count)
    stored_by = next((run for run in runs if run.last_modified == snapshot.last_modified), None)
    if made_up or stored_by:
        is_made_up = made_up or bool(stored_by and stored_by.is_made_up)
        runs = [run for run in runs if run.is_made_up == is_made_up]
    source = MADE_UP if made_up else stored_by.source if stored_by else UNKNOWN
    unfinished = file.with_name(f"{file.name}.part")
    unfinished.write_text(render(table_name, records, snapshot, runs, source), encoding="utf-8")
    unfinished.replace(file)
    size_kib = file.stat().st_size / 1024
    size = f"{counted(len(records), 'record')}, {counted(len(runs), 'run')}, {size_kib:,.0f} KiB"
    print(f"{file}: {size}")  # noqa: T201 (a command's answer)


def render(
    table_name: str, records: dict[str, Record], snapshot: TableSnapshot, runs: Sequence[Summary], source: str = UNKNOWN
) -> str:
    """Return the report as HTML.

    Args:
        table_name: of the table.
        records: all of the table's, by `pk`.
        snapshot: what they are of.
        runs: the newest first; with none, what runs did is left out.
        source: where the orders come from, in words.
    """
    files = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals |= {"cost_of_run": cost_of_run, "counted": counted}
    return environment.get_template(TEMPLATE).render(
        table_name=table_name,
        region=region_name(snapshot.region_id),
        snapshot=snapshot,
        written_at=datetime.now(UTC),
        rows=sorted(
            (type_id, type_name(type_id), record["price"], record["volume"])
            for type_id, record in ((int(pk), record) for pk, record in records.items())
        ),
        source=source,
        runs=runs,
        pictures={title: to_data_uri(png) for title, png in draw_pictures(runs).items()} if runs else {},
    )


if __name__ == "__main__":
    sys.exit(main())
