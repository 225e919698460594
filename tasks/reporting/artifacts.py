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

from tasks.catalogue.names import region_name, type_name
from tasks.esi.client import DeniedError, EsiError, RateLimitedError, RefusedError, TransientError
from tasks.reporting.reporter import attempt, create_artifact, name_region, report_afterwards, send_event
from tasks.reporting.summary import Summary, counted, percent
from tasks.retries import RETRIES
from tasks.store_records import Changes, Row, ShrinkError
from tasks.table.client import CredentialsError, Item, MissingTableError, TableError, TransientTableError
from tasks.table.lease import LeaseHeldError, LeaseLostError

MOVERS = 20
# USD per million units on demand in us-east-1, as of November 2026: https://aws.amazon.com/dynamodb/pricing/on-demand/
WRITE_UNITS_USD, READ_UNITS_USD = "0.625", "0.125"
# USD per million transitions of a standard workflow there: https://aws.amazon.com/step-functions/pricing/
TRANSITIONS_USD = 25
MILLION = 1_000_000
MONTH_SECONDS = 30 * 86_400


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
            f"{region_name(summary.region_id)}: {counted(len(changes.replaced), 'type')} changed until "
            f"{summary.last_modified:%Y-%m-%d %H:%M} UTC. These moved most: by the ISK that the change of price, or of "
            "volume, makes of what is on offer. Types whose price and volume changed by less than 0.05 % are left out.",
            key=f"movers-{summary.region_id}",
        )


def describe_run(summary: Summary) -> str:
    """Return a run's summary as markdown."""
    units = (summary.consumed_write_units, summary.consumed_read_units)
    size = f"{counted(summary.pages, 'page')} and {counted(summary.records, 'record')}"
    earlier = summary.compared_with
    causes = ", ".join(f"{count:,} {cause}" for cause, count in summary.retry_causes.items())
    rows = {
        "snapshot": f"{summary.last_modified:%Y-%m-%d %H:%M:%S} UTC, {summary.age_seconds:,.0f} s old when stored",
        "compared with": f"{earlier:%Y-%m-%d %H:%M:%S} UTC" if earlier else "no earlier snapshot of these parameters",
        "orders from": summary.source,
        "region": name_region(summary.region_id),
        "table": summary.table_name,
        "order_type": str(summary.order_type),
        "price": str(summary.price),
        "detail": str(summary.detail),
        "pages": f"{summary.pages:,}",
        "orders": f"{summary.orders:,}",
        "records": f"{summary.records:,}",
        "written": f"{summary.written:,}",
        "deleted": f"{summary.deleted:,}",
        "unchanged": f"{summary.unchanged:,}",
        "other items": f"{summary.foreign:,} in the table that are no item type's, left alone",
        "retries": f"{summary.retries:,}" + (f": {causes}" if causes else ""),
        "waits": f"{summary.waiting_seconds:,.1f} s for limits, before retries, for other runs and the next snapshot",
        "seconds": f"{summary.seconds:,.2f} s",
        **{f"… {state}": f"{seconds:,.2f} s" for state, seconds in summary.state_seconds.items()},
        "write units": f"{units[0]:,.1f}",
        "read units": f"{units[1]:,.1f}",
        "cost": describe_cost(cost_of_run(*units), summary),
        "cost by a state machine": describe_cost(cost_of_state_machine(summary.pages, summary.records), summary),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"| | |\n| --- | --- |\n{table}\n\n"
        "The cost is DynamoDB's, of write and read units on demand; server and worker come on top. A state machine "
        f"would make a transition for each of {size}, and write every record. What a month costs is said of a run that "
        "compared with an earlier snapshot: a first fill is no measure of it."
    )


def describe_cost(cost: Decimal, summary: Summary) -> str:
    """Return what a run costs, and a month of runs that are as far apart as its snapshot is from the one before.

    A run without one before it, such as a first fill, says nothing of a month.
    """
    if summary.compared_with is None:
        return f"${cost:.6f} for this run"
    seconds = (summary.last_modified - summary.compared_with).total_seconds()
    month = cost * Decimal(MONTH_SECONDS / seconds)
    return f"${cost:.6f} a run, ${month:,.2f} a month of runs like this, one every {round(seconds / 60, 1):g} minutes"


def to_data_uri(png: bytes) -> str:
    """Gives a picture as an address that holds it: Prefect's UI shows it in markdown, as a browser does."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def cost_of_run(write_units: float, read_units: float) -> Decimal:
    """Return what units cost, USD; `WRITE_UNITS_USD` and `READ_UNITS_USD` set the cost of a million of each.

    Raises:
        ValueError: one of them is no cost.
    """
    write_usd = read_cost("WRITE_UNITS_USD", WRITE_UNITS_USD)
    return (
        Decimal(write_units) * write_usd + Decimal(read_units) * read_cost("READ_UNITS_USD", READ_UNITS_USD)
    ) / MILLION


def read_cost(name: str, default: str) -> Decimal:
    """Return a cost of the environment, USD.

    Raises:
        ValueError: it is no cost.
    """
    given = os.environ.get(name) or default
    try:
        cost = Decimal(given)
    except InvalidOperation:
        cost = Decimal("nan")
    if not (cost.is_finite() and cost >= 0):
        raise ValueError(f"{name} is {given!r}: give USD per million units, such as {default}")
    return cost


def cost_of_state_machine(pages: int, records: int) -> Decimal:
    """Return what the five-state machine costs for the same table, USD: a transition a page and a record, five more."""
    return Decimal((pages + records + 5) * TRANSITIONS_USD) / MILLION + cost_of_run(records, 0)


def find_movers(changes: Changes) -> list[dict[str, Any]]:
    """Return the types that moved most: by the ISK that the change of price, or of volume, makes of what is on offer.

    A type whose changes both round to 0.0 % has not moved, however much ISK that is.

    Returns:
        At most `MOVERS` rows, the most first; empty if nothing that was there has moved.
    """
    known = [(row, changes.replaced[str(row[0])]) for row in changes.puts if str(row[0]) in changes.replaced]
    moved = [(row, old) for row, old in known if {"price", "volume"} <= old.keys() and any(percents_moved(row, old))]
    return [describe_mover(row, old) for row, old in sorted(moved, key=lambda pair: -isk_moved(*pair))[:MOVERS]]


def percents_moved(row: Row, old: Item) -> list[float]:
    """Return by how many percent a type's price and its volume have grown, to one place; 0.0, never -0.0."""
    return [
        round(percent(float(old[name]["N"]), new), 1) + 0.0
        for name, new in zip(("price", "volume"), row[1:], strict=False)
    ]


def isk_moved(row: Row, old: Item) -> float:
    """Return the ISK by which a type's value on offer moved, by its price or its volume, whichever is more."""
    _type_id, price, volume = row[:3]
    was_price, was_volume = (float(old[name]["N"]) for name in ("price", "volume"))
    return float(max(abs(price - was_price) * volume, abs(volume - was_volume) * price))


def describe_mover(row: Row, old: Item) -> dict[str, Any]:
    """Return a row of the movers' table; a narrow window shows the first columns."""
    type_id, price, volume = row[:3]
    was_price, was_volume = (Decimal(old[name]["N"]) for name in ("price", "volume"))
    price_percent, volume_percent = percents_moved(row, old)
    return {
        "type": type_name(type_id),
        "old price": f"{was_price:,.2f}",
        "new price": f"{price:,.2f}",
        "price %": f"{price_percent:+.1f}",
        "volume %": f"{volume_percent:+.1f}",
        "ISK moved": f"{isk_moved(row, old):,.0f}",
        "ISK on offer": f"{price * volume:,.0f}",
        "old volume": f"{was_volume:,}",
        "new volume": f"{volume:,}",
        "id": type_id,
    }


# What was tried before an error ended the run, and what to do; the first class that fits counts.

KNOWN: dict[type[BaseException], tuple[str, str]] = {
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
    """Report on a run that failed, unless its parameters were refused; emit an event if the shrink guard refused.

    The run's end is recorded already. Unlike an artifact, an event cannot be sent from a process that is about to exit.
    """
    given = str(
        flow_run.parameters.get("region_id", flow_run.parameters.get("structure_id", ""))
    )  # as it was given: perhaps text, perhaps wrong
    region_id = int(given) if given.isascii() and given.isdigit() else 0
    error = find_error(state)
    if isinstance(error, ShrinkError):
        attempt(send_event, "refused", region_id, {"reason": str(error)})
    if not isinstance(error, ParameterTypeError):
        report_afterwards(write_failure, flow_run, state, region_id)


def write_failure(client: SyncPrefectClient, flow_run: FlowRun, state: State[Any], region_id: int) -> None:
    """Create the artifact `failure-REGION`."""
    create_artifact(client, "markdown", describe_failure(state), f"{flow_run.name} failed", key=f"failure-{region_id}")


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
