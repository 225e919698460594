"""Print how fresh market tables are, and how their runs go; exit with 1 if a table is stale or its last run failed."""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from deployments.local.api import State
from deployments.local.progress import wrap
from flows.next_run import TAG
from tasks.catalogue.names import list_regions, region_name
from tasks.esi import markets
from tasks.table.client import Table
from tasks.table.errors import MissingTableError, TableError
from tasks.table.snapshot import TableSnapshot

DEFAULTS: dict[str, dict[str, Any]] = {  # what a flow's run is of, where its parameters do not say
    "market-data": {"region_id": 10000015, "table_name": "MarketData"},
    "structure-market": {"table_name": "StructureMarket-{structure_id}"},
    "universe": {"region_ids": None, "table_name": "MarketData-{region_id}"},
}
SNAPSHOTS = timedelta(minutes=15)  # three of them
ROUNDS = timedelta(minutes=40)  # of the universe, one every 15 minutes that takes up to 5: one may fail
PAGE_RUNS, PAGES = 200, 10  # Prefect's most a request; together more than any schedule makes between two looks
BEGUN = [kind for kind in StateType if kind not in {StateType.SCHEDULED, StateType.PENDING}]


class Part(msgspec.Struct, frozen=True):
    """A market table, or the part of a region in a table that several share."""

    table_name: str
    shared_by: int | None = None


class Begun(msgspec.Struct, frozen=True):
    """A run that has begun."""

    run: FlowRun
    flow: str
    market_id: int | str  # as it was given, perhaps wrong

    @property
    def failure(self) -> str:
        """Why it failed; empty if it did not."""
        state = self.run.state
        if state is None or state.type not in {StateType.FAILED, StateType.CRASHED}:
            return ""
        return State(state.type.value, state.name or "", state.message).reason


class Status(msgspec.Struct):
    """How a table stands, and how its runs go."""

    part: Part
    market_id: int | str = ""
    snapshot: TableSnapshot | None = None  # None if nothing is stored
    last: Begun | None = None  # the run that began last
    next: FlowRun | None = None  # the one that is scheduled next
    limit: timedelta | None = None  # of the data's age; None if no schedule keeps them fresh

    @property
    def name(self) -> str:
        """The table, and whose part of it is meant."""
        return self.part.table_name + (f" ({region_name(self.part.shared_by)})" if self.part.shared_by else "")

    @property
    def failure(self) -> str:
        """Why the last run failed; empty if it did not."""
        return self.last.failure if self.last else ""

    @property
    def staleness(self) -> str:
        """What is wrong with the data, empty if nothing is. Those of a run by hand are judged as of that run."""
        run = self.last.run if self.last else None
        if self.limit:
            limit, judged_at, when = self.limit, datetime.now(UTC), ""
        elif run and run.start_time and run.state and run.state.is_completed():
            limit, judged_at, when = SNAPSHOTS, run.start_time, " when its last run began"
        else:
            return ""
        if self.snapshot is None:
            return "empty"
        is_fresh = abs(judged_at - self.snapshot.last_modified) <= limit  # a date far ahead is no freshness
        return "" if is_fresh else f"older than {limit.total_seconds() / 60:.0f} minutes{when}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m deployments.status",
        description="Say how fresh the tables are that a Prefect server's runs fill, and how these runs go. The tables "
        "are read where boto3's settings say, the runs where PREFECT_API_URL says.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--table-name", default="MarketData", metavar="NAME", help="the table, if no run tells of any")
    table_name = parser.parse_args(arguments).table_name
    try:
        return show_status(read_statuses(table_name))
    except (TableError, ValueError) as error:
        print(f"no status: {error}", file=sys.stderr)  # noqa: T201 (a command's answer)
    except (PrefectException, httpx.HTTPError) as error:
        reason = " ".join(str(error).split())
        print(  # noqa: T201 (a command's answer)
            f"no status: the Prefect server at PREFECT_API_URL, {PREFECT_API_URL.value()}, gave no answer ({reason}): "
            "start it, or correct the address",
            file=sys.stderr,
        )
    return 1


def read_statuses(table_name: str) -> list[Status]:
    """Return the status of each table that a run of the server's is of; without any, that of `table_name`.

    Raises:
        TableError: a table cannot be read.
        PrefectException: the server refused.
        httpx.HTTPError: the server cannot be reached.
    """
    found: dict[Part, Status] = {}
    if PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            found = find_statuses(client)
    statuses = sorted(found.values(), key=lambda status: status.name)
    for status in statuses:
        status.snapshot = read_snapshot(status.part)
    if Part(table_name) not in found:
        own = Status(Part(table_name), snapshot=read_snapshot(Part(table_name)))
        own.limit = None if statuses else SNAPSHOTS
        statuses += [own] if own.snapshot or not statuses else []
    return statuses


def find_statuses(client: SyncPrefectClient) -> dict[Part, Status]:
    """Return what the server's runs say of each table: which began last, which is next, and how old data may be."""
    found: dict[Part, Status] = {}
    for flow, run in read_runs(client, BEGUN, FlowRunSort.START_TIME_DESC):
        if not run.run_count and run.state and run.state.is_cancelled():
            continue  # it never began, because the one before was still going
        for part, market_id in find_parts(flow, run.parameters):
            status = found.setdefault(part, Status(part, market_id))
            status.last = status.last or Begun(run, flow, market_id)
    for flow, run in read_runs(client, [StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC):
        limit = ROUNDS if flow == "universe" else SNAPSHOTS
        for part, market_id in find_parts(flow, run.parameters):
            status = found.setdefault(part, Status(part, market_id))
            status.next = status.next or run
            if is_by_schedule(run):
                status.limit = min(status.limit or limit, limit)
    return found


def read_runs(
    client: SyncPrefectClient, kinds: Sequence[StateType], sort: FlowRunSort
) -> Iterator[tuple[str, FlowRun]]:
    """Yield the runs of the flows that fill market tables, each with its flow's name, whatever started them."""
    wanted = FlowFilter(name=FlowFilterName(any_=list(DEFAULTS)))
    flows = {flow.id: flow.name for flow in client.read_flows(flow_filter=wanted)}
    runs = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(kinds))))
    for page in range(PAGES if flows else 0):
        found = client.read_flow_runs(
            flow_filter=FlowFilter(id=FlowFilterId(any_=list(flows))),
            flow_run_filter=runs,
            sort=sort,
            limit=PAGE_RUNS,
            offset=page * PAGE_RUNS,
        )
        yield from ((flows[run.flow_id], run) for run in found)
        if len(found) < PAGE_RUNS:
            return


def find_parts(flow: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Part, int | str]]:
    """Yield the tables that a run is of, each with its market's id; none where the parameters are of no table."""
    given = {**DEFAULTS[flow], **parameters}
    wanted: Sequence[Any]
    if flow != "universe":
        wanted = [given.get("structure_id" if flow == "structure-market" else "region_id")]
    elif given["region_ids"] is None:
        wanted = [*list_regions(None)]
    else:
        wanted = given["region_ids"] if isinstance(given["region_ids"], list) else []
    for value in wanted:
        if isinstance(value, int | str):
            market_id = int(value) if str(value).isdecimal() else str(value)
            name = re.sub(r"\{(region|structure)_id\}", str(value), str(given["table_name"]))
            is_shared = given.get("key") == "region_type" and isinstance(market_id, int)
            yield Part(name, int(market_id) if is_shared else None), market_id


def is_by_schedule(run: FlowRun) -> bool:
    """Return whether a schedule made a run, or a run that a schedule made did."""
    return run.auto_scheduled or TAG in run.tags


def read_snapshot(part: Part) -> TableSnapshot | None:
    """Return where a table stands, None if it holds nothing, or cannot be there because of its name.

    Raises:
        TableError: it cannot be read.
    """
    try:
        table = Table(part.table_name, 1, part.shared_by)
    except ValueError:
        return None
    with table:
        try:
            item = table.read_snapshot()
        except MissingTableError:
            return None
    return TableSnapshot.from_item(item) if item else None


def show_status(statuses: Sequence[Status]) -> int:
    """Print how tables stand; return 1 if one is stale or its last run failed, else 0."""
    for status in statuses:
        print(*describe(status), sep="\n")  # noqa: T201 (a command's answer)
    failed = [status.name for status in statuses if status.failure]
    stale = [f"{status.name} ({status.staleness})" for status in statuses if status.staleness]
    for what, names in (("last run failed", failed), ("stale", stale)):
        if names:
            print(wrap(", ".join(names), f"{what}: ", "  "))  # noqa: T201 (a command's answer)
    return 1 if failed or stale else 0


def describe(status: Status) -> Iterator[str]:
    """Yield the lines that say how a table stands: where it is, how its runs go, why the last one failed."""
    snapshot, now = status.snapshot, datetime.now(UTC)
    market = name_market(snapshot.region_id if snapshot else status.market_id)
    state = f"{snapshot.state}, {say_seconds(now - snapshot.last_modified)} old" if snapshot else "empty"
    yield wrap(", ".join(filter(None, [market, state])), f"{status.part.table_name}: ", "  ")
    told = [f"of {snapshot.last_modified:%Y-%m-%d %H:%M:%S} UTC"] if snapshot else []
    if status.last:
        told.append(describe_run(status.last, market))
    if status.next and status.next.expected_start_time:
        wait = -(now - status.next.expected_start_time)
        told.append(f"next in {say_seconds(wait)}" if wait > timedelta(0) else f"next was due {say_seconds(-wait)} ago")
    elif status.last:
        told.append("by hand")
    if told:
        yield wrap("; ".join(told), "  ")
    if status.failure:
        yield wrap(status.failure, "  ")


def describe_run(last: Begun, market: str) -> str:
    """Return how a run went, and whose it was if it was not that of the table's market alone."""
    run = last.run
    whose = "universe run" if last.flow == "universe" else "run"
    if (other := name_market(last.market_id)) != market:
        whose += f" for {other}"
    late = ""
    if is_by_schedule(run) and run.run_count and run.start_time and run.expected_start_time:
        late = f", {say_seconds(run.start_time - run.expected_start_time)} late"
    return f"{whose} {run.state.name if run.state else ''}{late}"


def name_market(market_id: int | str) -> str:
    """Return a market's name and id, or what it was called where it has none."""
    if not isinstance(market_id, int):
        return market_id
    name = region_name(market_id)
    return markets.name_market(market_id) if name == str(market_id) else f"{name} ({market_id})"


def say_seconds(time: timedelta) -> str:
    """Return a time in words, never below 0."""
    return f"{max(0.0, time.total_seconds()):,.0f} s"


if __name__ == "__main__":
    sys.exit(main())
