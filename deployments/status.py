"""Print how fresh market tables are and how their runs went; exit with 1 if a table is stale or its last run failed."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import FlowRun, StateType, filters, sorting
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from deployments.local.progress import fail, strip_prefix, wrap
from deployments.local.show import describe_market
from flows.next_run import AT_EXPIRES, TAG
from tasks.catalogue.names import list_regions, market_name
from tasks.table.client import Table
from tasks.table.errors import KeySchemaError, MissingTableError, TableError
from tasks.table.requests import ONE_MARKET, ItemKeys, Keys
from tasks.table.snapshot import SourceSnapshot, TableSnapshot

DEFAULTS: dict[str, dict[str, Any]] = {  # of the parameters that say which market and table a flow's run is for
    "market-data": {"region_id": 10000015, "table_name": "MarketData", "key": "type", "markets": None},
    "structure-market": {"table_name": "StructureMarket-{structure_id}"},
    "universe": {"region_ids": None, "table_name": "MarketData-{region_id}", "key": "type", "markets": None},
    "paged-api": {"source": {}, "records": {}},
}
SNAPSHOTS = timedelta(minutes=15)  # three of them
ROUNDS = timedelta(minutes=40)  # of the universe, every 15 minutes, 5 minutes each: one may fail
PAGE_RUNS, PAGES = 200, 10  # Prefect's limit for a request; together, more runs than any schedule makes in a day
STARTED = list(set(StateType) - {StateType.SCHEDULED, StateType.PENDING})


class Part(msgspec.Struct, frozen=True):
    """A market table, or one market's part of a table that has many."""

    table_name: str
    keys: Keys = ONE_MARKET


class Status(msgspec.Struct):
    """The status of a table and its runs."""

    part: Part
    market_id: int | str = ""  # of the run that was found first, as given, perhaps invalid; a declared source's URL
    snapshot: TableSnapshot | SourceSnapshot | None = None  # None if there is none, for which `state` has the reason
    state: str = "empty"
    last: FlowRun | None = None  # the run that started last
    flow: str = ""  # … its flow
    next: FlowRun | None = None  # the next scheduled run
    limit: timedelta | None = None  # of the data's age; None without an active schedule

    @property
    def name(self) -> str:
        """The table's name, with the market if it has many."""
        market_id = self.part.keys.market_id
        return f"{self.part.table_name} ({market_name(market_id)})" if market_id else self.part.table_name

    @property
    def failure(self) -> str:
        """Why the last run failed; empty if it did not."""
        state = self.last.state if self.last else None
        failed = state and (state.is_failed() or state.is_crashed())
        return strip_prefix(state.message or str(state.name)) if state and failed else ""

    @property
    def staleness(self) -> str:
        """What is wrong with the data; empty if nothing is. After a manual run, judge their age at its start."""
        run = self.last
        if self.limit:
            limit, judged_at, when = self.limit, datetime.now(UTC), ""
        elif run and run.start_time and run.state and run.state.is_completed():
            limit, judged_at, when = SNAPSHOTS, run.start_time, " when its last run began"
        else:
            return ""
        if self.snapshot is None or isinstance(self.snapshot, SourceSnapshot):
            return "" if self.snapshot else self.state  # only its API knows when it changes
        is_fresh = abs(judged_at - self.snapshot.last_modified) <= limit  # a date far in the future is not fresh either
        return "" if is_fresh else f"older than {limit.total_seconds() / 60:.0f} minutes{when}"


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command that reads a table and Prefect's runs."""
    parser = argparse.ArgumentParser(
        f"python -m deployments.{command}",
        description=f"{description} Tables are read with boto3's settings, runs from the server at PREFECT_API_URL.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--table-name", default="MarketData", metavar="NAME", help="the table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    description = "Print how fresh the tables are that the runs of a Prefect server fill, and how the runs went."
    parser = make_parser("status", description)
    parser.add_argument("--markets", nargs="+", type=int, metavar="ID", help="its markets, if its key is market_type")
    given = parser.parse_args(arguments)
    try:
        return show_status(read_statuses([Part(given.table_name, Keys(market)) for market in given.markets or [None]]))
    except (TableError, ValueError) as error:
        return fail(f"no status: {error}")
    except (PrefectException, httpx.HTTPError) as error:
        server = f"the Prefect server at PREFECT_API_URL, {PREFECT_API_URL.value()}"
        reason = " ".join(str(error).split())
        return fail(f"no status: {server}, does not respond ({reason}): start it, or correct the address")


def read_statuses(own: Sequence[Part]) -> list[Status]:
    """Return the status of each table that the server has runs for; those of `own` if there are none."""
    found: dict[Part, Status] = {}
    if PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            found = find_statuses(client)
    statuses = sorted(found.values(), key=lambda status: status.name)
    limit = None if found else SNAPSHOTS
    statuses += [Status(part, part.keys.market_id or "", limit=limit) for part in own if part not in found]
    for status in statuses:
        read_snapshot(status)
    return [status for status in statuses if status.part in found or status.snapshot or not found]


def find_statuses(client: SyncPrefectClient) -> dict[Part, Status]:
    """Return what the server's runs say about each table: the last run, the next one, and how old data may be."""
    found: dict[Part, Status] = {}
    for flow, run in read_runs(client, STARTED, sorting.FlowRunSort.START_TIME_DESC):
        if not run.run_count and run.state and run.state.is_cancelled():
            continue  # it never started, because the run before was still active
        for part, market_id in find_parts(flow, run.parameters):
            found.setdefault(part, Status(part, market_id, last=run, flow=flow))
    for flow, run in read_runs(client, [StateType.SCHEDULED], sorting.FlowRunSort.EXPECTED_START_TIME_ASC):
        limit = ROUNDS if flow == "universe" and AT_EXPIRES not in run.tags else SNAPSHOTS
        for part, market_id in find_parts(flow, run.parameters):
            status = found.setdefault(part, Status(part, market_id))
            status.next = status.next or run
            if is_by_schedule(run):
                status.limit = min(status.limit or limit, limit)
    return found


def read_runs(
    client: SyncPrefectClient, kinds: Sequence[StateType], sort: sorting.FlowRunSort
) -> Iterator[tuple[str, FlowRun]]:
    """Yield the runs of the flows that fill market tables, each after its flow's name."""
    wanted = filters.FlowFilter.model_validate({"name": {"any_": list(DEFAULTS)}})
    flows = {flow.id: flow.name for flow in client.read_flows(flow_filter=wanted)}
    runs = filters.FlowRunFilter.model_validate({"state": {"type": {"any_": kinds}}})
    for page in range(PAGES):
        found = client.read_flow_runs(
            flow_filter=wanted, flow_run_filter=runs, sort=sort, limit=PAGE_RUNS, offset=page * PAGE_RUNS
        )
        yield from ((flows[run.flow_id], run) for run in found)
        if len(found) < PAGE_RUNS:
            return


def find_parts(flow: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Part, int | str]]:
    """Yield the tables that a run fills, each with its market's id; nothing if the parameters are invalid."""
    given = {**DEFAULTS[flow], **parameters}
    with suppress(AttributeError, LookupError, TypeError):
        if flow == "paged-api":
            keys = ItemKeys(is_pair=True) if isinstance(given["records"]["key"], list) else ONE_MARKET
            yield Part(str(given["table_name"]), keys), given["source"]["url"]
            return
        markets = given.get("markets") or {}
        if flow == "universe":
            kept = {each: markets.get(str(each)) for each in given["region_ids"] or markets or list_regions(None)}
        else:
            kept = {given["structure_id" if flow == "structure-market" else "region_id"]: markets}
        for source, market in ((region, market) for region, own in kept.items() for market in own or [region]):
            name, market_id = str(given["table_name"]), int(market) if str(market).isdecimal() else str(market)
            for place, value in {"market": market, "region": source, "structure": source}.items():
                name = name.replace(f"{{{place}_id}}", str(value))
            has_many = given.get("key") == "market_type" and isinstance(market_id, int)
            yield Part(name, Keys(int(market_id)) if has_many else ONE_MARKET), market_id


def is_by_schedule(run: FlowRun) -> bool:
    """Return whether a run was created by a schedule, or by a run that was."""
    return run.auto_scheduled or TAG in run.tags


def read_snapshot(status: Status) -> None:
    """Read a table's snapshot, if something is stored, and a table can have this name."""
    with suppress(ValueError, MissingTableError):
        try:
            with Table(status.part.table_name, keys=status.part.keys) as table:
                item = table.read_snapshot()
            kind = SourceSnapshot if item and "source" in item else TableSnapshot
            status.snapshot = kind.from_item(item) if item else None
        except KeySchemaError:
            status.state = "its keys are not those of its runs"


def show_status(statuses: Sequence[Status]) -> int:
    """Print the status of tables; return 1 if one is stale or its last run failed, else 0."""
    for status in statuses:
        print(*describe(status), sep="\n")  # noqa: T201 (a command's answer)
    failed = [status.name for status in statuses if status.failure]
    stale = [f"{status.name} ({status.staleness})" for status in statuses if status.staleness]
    for what, names in (("last run failed", failed), ("stale", stale)):
        if names:
            print(wrap(", ".join(names), f"{what}: ", "  "))  # noqa: T201 (a command's answer)
    return 1 if failed or stale else 0


def describe(status: Status) -> Iterator[str]:
    """Yield the lines that describe a table: its data's age, its runs, why the last one failed."""
    snapshot, now = status.snapshot, datetime.now(UTC)
    held = snapshot.source if isinstance(snapshot, SourceSnapshot) else snapshot.market_id if snapshot else None
    market = describe_market(held or status.market_id)
    state = f"{snapshot.state}, {describe_time(now - snapshot.last_modified)} old" if snapshot else status.state
    yield wrap(", ".join(filter(None, [market, state])), f"{status.part.table_name}: ", "  ")
    facts = [f"of {snapshot.last_modified:%Y-%m-%d %H:%M:%S} UTC"] if snapshot else []
    if status.last:
        facts.append(describe_run(status.last, status, market))
    if status.next and status.next.expected_start_time:
        wait = -(now - status.next.expected_start_time)
        is_due = wait <= timedelta(0)
        facts.append(f"next was due {describe_time(-wait)} ago" if is_due else f"next in {describe_time(wait)}")
    elif status.last:
        facts.append("by hand")
    yield from (wrap(line, "  ") for line in ("; ".join(facts), status.failure) if line)


def describe_run(run: FlowRun, status: Status, market: str) -> str:
    """Describe a table's last run; name the run's market if the table holds another one."""
    kind = "universe run" if status.flow == "universe" else "run"
    other = describe_market(status.market_id)
    whose = "" if other == market else f" for {other}"
    late = ""
    if is_by_schedule(run) and run.run_count and run.start_time and run.expected_start_time:
        late = f", {describe_time(run.start_time - run.expected_start_time)} late"
    return f"{kind}{whose} {run.state.name if run.state else ''}{late}"


def describe_time(time: timedelta) -> str:
    """Return a time in whole seconds, 0 if it is negative."""
    return f"{max(0.0, time.total_seconds()):,.0f} s"


if __name__ == "__main__":
    sys.exit(main())
