"""What a run leaves in Prefect to be read: its summary, the types that moved most, and what to do if it failed."""

import base64
import json
import os
from decimal import Decimal, InvalidOperation
from typing import Any

from prefect import Flow, State
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ParameterTypeError

from tasks.esi import DeniedError, EsiError, RateLimitedError, RefusedError, TransientError
from tasks.lease import LeaseHeldError, LeaseLostError
from tasks.names import region_name, type_name
from tasks.reporter import create_artifact, report_afterwards, send_event
from tasks.retries import RETRIES
from tasks.store_records import Changes, Row, ShrinkError
from tasks.summary import Summary, percent
from tasks.table import CredentialsError, Item, MissingTableError, TableError, TransientTableError

MOVERS = 20
# USD per million units on demand in us-east-1, as of November 2026: https://aws.amazon.com/dynamodb/pricing/on-demand/
WRITE_UNITS_USD, READ_UNITS_USD = "0.625", "0.125"
# USD per million transitions of a standard workflow there: https://aws.amazon.com/step-functions/pricing/
TRANSITIONS_USD = 25
MILLION = 1_000_000
RUNS_A_MONTH = 30 * 24 * 12  # every five minutes


def write_summary(client: SyncPrefectClient, summary: Summary, pictures: dict[str, bytes]) -> None:
    """Creates the artifact `summary-REGION`, whose versions are the region's history.

    Args:
        client: of Prefect's API.
        summary: what is told.
        pictures: PNG files by title.
    """
    shown = [f"![{title}]({to_data_uri(png)})" for title, png in pictures.items()]
    create_artifact(
        client,
        "markdown",
        "\n\n".join([describe_run(summary), *shown]),
        f"{region_name(summary.region_id)}: {summary.written:,} written, {summary.deleted:,} deleted, "
        f"{summary.unchanged:,} unchanged; {summary.age_seconds:,.0f} s old when stored",
        key=f"summary-{summary.region_id}",
    )


def write_movers(client: SyncPrefectClient, summary: Summary, changes: Changes) -> None:
    """Creates the artifact `movers-REGION`: the types whose record differs most from the snapshot before."""
    if movers := find_movers(changes):
        create_artifact(
            client,
            "table",
            json.dumps(movers),
            f"{region_name(summary.region_id)}: {len(changes.replaced):,} types changed until "
            f"{summary.last_modified:%Y-%m-%d %H:%M} UTC; these moved most ISK",
            key=f"movers-{summary.region_id}",
        )


def describe_run(summary: Summary) -> str:
    """Gives a run's summary as markdown."""
    units = (summary.consumed_write_units, summary.consumed_read_units)
    cost, instead = price_run(*units), price_state_machine(summary.pages, summary.records)
    causes = ", ".join(f"{count:,} {cause}" for cause, count in summary.retry_causes.items())
    rows = {
        "snapshot": f"{summary.last_modified:%Y-%m-%d %H:%M:%S} UTC, {summary.age_seconds:,.0f} s old when stored",
        "region": f"{summary.region_id} {region_name(summary.region_id)}",
        "table": summary.table_name,
        "pages": f"{summary.pages:,}",
        "orders": f"{summary.orders:,}",
        "records": f"{summary.records:,}",
        "written": f"{summary.written:,}",
        "deleted": f"{summary.deleted:,}",
        "unchanged": f"{summary.unchanged:,}",
        "foreign items": f"{summary.foreign:,}",
        "retries": f"{summary.retries:,}" + (f": {causes}" if causes else ""),
        "waited": f"{summary.waiting_seconds:,.1f} s",
        "seconds": f"{summary.seconds:,.2f} s",
        **{f"… {state}": f"{seconds:,.2f} s" for state, seconds in summary.state_seconds.items()},
        "write units": f"{units[0]:,.1f}",
        "read units": f"{units[1]:,.1f}",
        "price": f"${cost:.6f} a run, ${cost * RUNS_A_MONTH:,.2f} a month of a run like this every 5 minutes",
        "by a state machine": f"${instead:.6f} a run, ${instead * RUNS_A_MONTH:,.2f} a month",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"| | |\n| --- | --- |\n{table}\n\n"
        "The price is DynamoDB's, of write and read units on demand; server and worker come on top. A state machine "
        "would make a transition a page and a record, and write every record."
    )


def to_data_uri(png: bytes) -> str:
    """Gives a picture as an address that holds it: Prefect's UI shows it in markdown, as a browser does."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def price_run(write_units: float, read_units: float) -> Decimal:
    """Gives what units cost, USD; `WRITE_UNITS_USD` and `READ_UNITS_USD` set the prices of a million of each.

    Raises:
        ValueError: one of them is no price.
    """
    write_usd = read_price("WRITE_UNITS_USD", WRITE_UNITS_USD)
    return (
        Decimal(write_units) * write_usd + Decimal(read_units) * read_price("READ_UNITS_USD", READ_UNITS_USD)
    ) / MILLION


def read_price(name: str, default: str) -> Decimal:
    """Gives a price of the environment, USD.

    Raises:
        ValueError: it is no price.
    """
    given = os.environ.get(name) or default
    try:
        price = Decimal(given)
    except InvalidOperation:
        price = Decimal("nan")
    if not (price.is_finite() and price >= 0):
        raise ValueError(f"{name} is {given!r}: give USD per million units, such as {default}")
    return price


def price_state_machine(pages: int, records: int) -> Decimal:
    """Gives what the five-state machine costs for the same table, USD: a transition a page and a record, five more."""
    return Decimal((pages + records + 5) * TRANSITIONS_USD) / MILLION + price_run(records, 0)


def find_movers(changes: Changes) -> list[dict[str, Any]]:
    """Gives the types that moved most: by the ISK that the change of price, or of volume, makes of what is on offer.

    Returns:
        At most `MOVERS` rows, the most first; empty if nothing that was there has changed.
    """
    moved = [(row, changes.replaced[str(row[0])]) for row in changes.puts if str(row[0]) in changes.replaced]
    moved = [(row, old) for row, old in moved if {"price", "volume"} <= old.keys()]
    return [describe_mover(row, old) for row, old in sorted(moved, key=lambda pair: -isk_moved(*pair))[:MOVERS]]


def isk_moved(row: Row, old: Item) -> float:
    """Gives the ISK by which a type's value on offer moved, by its price or its volume, whichever is more."""
    _type_id, price, volume = row[:3]
    was_price, was_volume = (float(old[name]["N"]) for name in ("price", "volume"))
    return float(max(abs(price - was_price) * volume, abs(volume - was_volume) * price))


def describe_mover(row: Row, old: Item) -> dict[str, Any]:
    """Gives a row of the movers' table; a narrow window shows the first columns."""
    type_id, price, volume = row[:3]
    was_price, was_volume = (Decimal(old[name]["N"]) for name in ("price", "volume"))
    return {
        "type": type_name(type_id),
        "price %": f"{percent(float(was_price), price):+.1f}",
        "volume %": f"{percent(float(was_volume), volume):+.1f}",
        "ISK on offer": f"{price * volume:,.0f}",
        "new price": f"{price:,.2f}",
        "old price": f"{was_price:,.2f}",
        "new volume": f"{volume:,}",
        "old volume": f"{was_volume:,}",
        "id": type_id,
    }


# What was tried before an error ended the run, and what to do; the first class that fits counts.

KNOWN: dict[type[BaseException], tuple[str, str]] = {
    ParameterTypeError: ("Nothing was requested.", "Give what the message allows."),
    RateLimitedError: (
        f"All requests held still as long as ESI said, {RETRIES} times.",
        "Ask for fewer regions, or less often: other programs at this address count too.",
    ),
    TransientError: (
        f"It was asked for again {RETRIES} times, after growing waits.",
        "Nothing, if ESI is down, as it is each day at 11:00 UTC: the next run does its work. Else ask it from here.",
    ),
    DeniedError: ("Twice, the second time with a new access token.", "What the message says."),
    RefusedError: ("Once: asking again would give the same answer.", "What the message says; the next run asks again."),
    ShrinkError: (
        "Nothing: a snapshot that has lost so much is more likely broken than true.",
        "Look at the market. If it is true, run once with `force`.",
    ),
    LeaseHeldError: ("This run waited two minutes for the other.", "Nothing, or run one schedule a table."),
    LeaseLostError: ("It stopped writing at once.", "Nothing: the next run repairs."),
    MissingTableError: ("Nothing was fetched.", "Create the table, with the command in the message."),
    CredentialsError: (
        f"They were asked for again {RETRIES} times, after growing waits.",
        "What the message says: look at who issues the credentials, or at the keys.",
    ),
    TransientTableError: (
        f"It was sent again {RETRIES} times, after growing waits.",
        "Nothing, if it was a spell of throttling: the next run writes the rest. Else give the table more capacity.",
    ),
    TableError: ("Once: trying again would give the same.", "What the message says."),
    EsiError: ("It was asked for.", "What the message says."),
}
UNKNOWN = ("It has not been tried again.", "Read the run's logs: this is no failure of ESI's or DynamoDB's.")


def explain_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's)
    """Report on a run that failed; its end is recorded already."""
    report_afterwards(write_failure, flow_run, state)


def write_failure(client: SyncPrefectClient, flow_run: FlowRun, state: State[Any]) -> None:
    """Create the artifact `failure-REGION`; emit an event, too, if the shrink guard has refused the snapshot."""
    given = str(
        flow_run.parameters.get("region_id", flow_run.parameters.get("structure_id", ""))
    )  # as it was given: perhaps text, perhaps wrong
    region_id = int(given) if given.isascii() and given.isdigit() else 0
    create_artifact(client, "markdown", describe_failure(state), f"{flow_run.name} failed", key=f"failure-{region_id}")
    error = find_error(state)
    if isinstance(error, ShrinkError):
        send_event("refused", region_id, {"reason": str(error)})


def find_error(state: State[Any]) -> BaseException | None:
    """Gives the error that ended a run, None if there was none."""
    data = getattr(state.data, "result", state.data)  # a ResultRecord has it
    return data if isinstance(data, BaseException) else None


def describe_failure(state: State[Any]) -> str:
    """Gives what failed, what was tried and what to do, as markdown."""
    error = find_error(state)
    tried, to_do = next((said for kind, said in KNOWN.items() if isinstance(error, kind)), UNKNOWN)
    return (
        f"**What failed.** {type(error).__name__ if error else state.name}: {error or state.message}\n\n"
        f"**What was tried.** {tried}\n\n**What to do.** {to_do}\n\n"
        "The table holds true records all the same; `#snapshot` says whether they are one whole snapshot, and the next "
        "run writes what is missing."
    )
