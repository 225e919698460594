"""A run's artifacts: its summary, and the types that moved most."""

import base64
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.runtime import flow_run

from tasks.catalogue.names import region_name, type_name
from tasks.reporting.costs import cost_of_state_machine
from tasks.reporting.summary import AnySummary, Replacement, Summary, counted, list_replaced, percent
from tasks.table.records import Changes

MOVERS = 20
MONTH_SECONDS = 30 * 86_400


def write_summary(client: SyncPrefectClient, summary: AnySummary, pictures: dict[str, bytes]) -> None:
    """Create the artifact `summary-REGION` or `summary-SOURCE`, with PNG files by title. Versions are the history."""
    shown = [describe_run(summary), *(f"![{title}]({to_data_uri(png)})" for title, png in pictures.items())]
    about = f"{summary.subject.name}: {summary.done}; {summary.age_seconds:,.0f} s old when stored"
    create_artifact(client, "markdown", "\n\n".join(shown), about, f"summary-{summary.subject.id}")


def write_movers(client: SyncPrefectClient, summary: Summary, changes: list[Changes]) -> None:
    """Create the artifact `movers-REGION`: the types whose records changed most."""
    changed = sum(len(each.replaced) for each in changes)
    if movers := find_movers(changes):
        about = (
            f"{region_name(summary.region_id)}: {counted(changed, 'record')} changed until "
            f"{summary.last_modified:%Y-%m-%d %H:%M} UTC. These moved most, by the ISK value of the change in price or "
            "in volume. Types whose price and volume changed by less than 0.05 % are left out."
        )
        create_artifact(client, "table", json.dumps(movers), about, f"movers-{summary.region_id}")


def describe_run(summary: AnySummary) -> str:
    """Return a run's summary as markdown."""
    size = f"{counted(summary.pages, 'page')} and {counted(summary.records, 'record')}"
    earlier = summary.compared_with
    causes = ", ".join(f"{count:,} {cause}" for cause, count in summary.retry_causes.items())
    rows = {
        "snapshot": f"{summary.last_modified:%Y-%m-%d %H:%M:%S} UTC, {summary.age_seconds:,.0f} s old when stored",
        "compared with": f"{earlier:%Y-%m-%d %H:%M:%S} UTC" if earlier else "no earlier snapshot with these parameters",
        "table": summary.table_name,
        **summary.rows,
        **{name: f"{getattr(summary, name):,}" for name in ("pages", "records", "written", "deleted", "unchanged")},
        "other items": f"{summary.foreign:,} in the table that are not records, left alone",
        "retries": f"{summary.retries:,}" + (f": {causes}" if causes else ""),
        "waits": f"{summary.waiting_seconds:,.1f} s for limits, before retries, for other runs and the next snapshot",
        "seconds": f"{summary.seconds:,.2f} s",
        **{f"… {state}": f"{seconds:,.2f} s" for state, seconds in summary.state_seconds.items()},
        "write units": f"{summary.consumed_write_units:,.1f}",
        "read units": f"{summary.consumed_read_units:,.1f}",
        "cost": describe_cost(summary.cost_usd, summary),
        "cost by a state machine": describe_cost(cost_of_state_machine(summary.pages, summary.records), summary),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"| | |\n| --- | --- |\n{table}\n\n"
        "The cost is DynamoDB's on-demand write and read units; server and worker are extra. A state machine would "
        f"make a transition for each of {size}, and write every record. The cost of a month is given only for a run "
        "with an earlier snapshot to compare with: a first fill says nothing about it."
    )


def describe_cost(cost: Decimal, summary: AnySummary) -> str:
    """Return the cost of a run and, unless it is a first fill, of a month of them at the interval of its snapshots."""
    if summary.compared_with is None:
        return f"${cost:.6f} for this run"
    seconds = (summary.last_modified - summary.compared_with).total_seconds()
    month = cost * Decimal(MONTH_SECONDS / seconds)
    return f"${cost:.6f} a run, ${month:,.2f} a month of runs like this, one every {round(seconds / 60, 1):g} minutes"


def to_data_uri(png: bytes) -> str:
    """Return a picture as a data URI, which Prefect's UI shows in markdown."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def find_movers(changes: Sequence[Changes]) -> list[dict[str, Any]]:
    """Return rows of the types that moved most, by the ISK value of the change in price or in volume.

    Types whose changes both round to 0.0 % are left out, however much ISK that is.
    """
    moved = [each for each in list_replaced(changes) if any(percents_moved(each))]
    return [describe_mover(each) for each in sorted(moved, key=lambda each: -isk_moved(each))[:MOVERS]]


def percents_moved(moved: Replacement) -> list[float]:
    """Return the percent change of a type's price and volume, to one decimal; 0.0, never -0.0."""
    pairs = ((moved.old_price, moved.record.price), (float(moved.old_volume), moved.record.volume))
    return [round(percent(was, now), 1) + 0.0 for was, now in pairs]


def isk_moved(moved: Replacement) -> float:
    """Return the ISK value of the change in a type's price or in its volume, whichever is larger."""
    new = moved.record
    return max(abs(new.price - moved.old_price) * new.volume, abs(new.volume - float(moved.old_volume)) * new.price)


def describe_mover(moved: Replacement) -> dict[str, Any]:
    """Return a row of the movers' table, the columns for narrow windows first."""
    new = moved.record
    price_percent, volume_percent = percents_moved(moved)
    return {
        "type": type_name(new.type_id),
        "old price": f"{moved.old_price:,.2f}",
        "new price": f"{new.price:,.2f}",
        "price %": f"{price_percent:+.1f}",
        "volume %": f"{volume_percent:+.1f}",
        "ISK moved": f"{isk_moved(moved):,.0f}",
        "ISK on offer": f"{new.price * new.volume:,.0f}",
        "old volume": f"{moved.old_volume:,}",
        "new volume": f"{new.volume:,}",
        "id": new.type_id,
    }


def create_artifact(
    client: SyncPrefectClient, kind: str, data: object, description: str, key: str | None = None
) -> str:
    """Create an artifact of this flow run and return its id.

    Prefect's own functions also emit an event, which fails in a process that is about to exit.
    """
    artifact = {"type": kind, "data": data, "description": description, "key": key, "flow_run_id": flow_run.id}
    return str(client.request("POST", "/artifacts/", json=artifact).json()["id"])


def update_artifact(client: SyncPrefectClient, artifact_id: str, data: float, description: str) -> None:
    """Update an artifact."""
    body = {"data": data, "description": description}
    client.request("PATCH", "/artifacts/{id}", path_params={"id": artifact_id}, json=body)
