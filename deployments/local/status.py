"""Says of each market table how fresh it is, and of its deployment how its runs go."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table as Grid

from deployments.local.api import Api, FlowRun
from tasks.names import list_regions, region_name
from tasks.table import MissingTableError, Table
from tasks.table_snapshot import TableSnapshot

STALE_SECONDS = 900.0  # three snapshots
UNIVERSE_STALE_SECONDS = 2400.0  # of a run every 900 s that takes up to 300 s, one may fail


class Status(msgspec.Struct, frozen=True):
    """How a table stands, and how its runs go."""

    table_name: str
    region_id: int
    snapshot: TableSnapshot | None  # None if nothing is stored
    last: FlowRun | None = None  # the run that began last
    next: FlowRun | None = None  # the one that is scheduled next
    stale_seconds: float = STALE_SECONDS  # older data are too old

    @property
    def age(self) -> timedelta | None:
        """How old the table's data are."""
        return datetime.now(UTC) - self.snapshot.last_modified if self.snapshot else None

    @property
    def is_stale(self) -> bool:
        """Whether its data are too old, or are not there; those of a deployment that is run by hand may be."""
        if self.last and not self.next:
            return False
        return self.age is None or self.age.total_seconds() > self.stale_seconds


def show_status(wanted: dict[str, int], api: Api | None) -> bool:
    """Prints how tables stand, and tells whether all of them are fresh.

    Args:
        wanted: region ids by table, for want of a Prefect server to ask.
        api: of the server whose deployments fill the tables, if there is one.

    Raises:
        TableError: a table cannot be read.
    """
    statuses = [*read_deployed(api), *read_universe(api)] if api else []
    known = {status.table_name for status in statuses}
    statuses += [Status(name, region, read_snapshot(name)) for name, region in wanted.items() if name not in known]
    Console().print(make_grid(statuses))
    for status in statuses:
        if status.last and status.last.state.type != "COMPLETED":
            Console().print(f"{status.table_name}: {status.last.state.reason}", highlight=False, soft_wrap=True)
    stale = [status.table_name for status in statuses if status.is_stale]
    if stale:
        Console().print(f"stale, older than {STALE_SECONDS / 60:.0f} minutes or empty: {', '.join(stale)}")
    return not stale


def read_deployed(api: Api) -> list[Status]:
    """Gives how the tables stand that deployments fill by schedule, or have filled."""
    statuses: list[Status] = []
    for deployment in api.list_deployments("market-data"):
        if "region_id" not in deployment.parameters:
            continue  # a region of the universe
        region_id = int(deployment.parameters["region_id"])
        name = str(deployment.parameters.get("table_name", "")).replace("{region_id}", str(region_id))
        last, following = api.read_last_run(deployment), api.read_next_run(deployment)
        if last or following:
            statuses.append(Status(name, region_id, read_snapshot(name), last, following))
    return statuses


def read_universe(api: Api) -> list[Status]:
    """Gives how the regions' tables stand that a deployment fills together."""
    statuses: list[Status] = []
    for deployment in api.list_deployments("universe"):
        last, following = api.read_last_run(deployment), api.read_next_run(deployment)
        template, given = str(deployment.parameters.get("table_name", "")), deployment.parameters.get("region_ids")
        is_shared = deployment.parameters.get("key") == "region_type"
        for region_id in list_regions(given) if last or following else []:
            name = template.replace("{region_id}", str(region_id))
            snapshot = read_snapshot(name, region_id if is_shared else None)
            statuses.append(Status(name, region_id, snapshot, last, following, UNIVERSE_STALE_SECONDS))
    return statuses


def read_snapshot(table_name: str, region_id: int | None = None) -> TableSnapshot | None:
    """Gives where a table stands, or a region's part of one that several share, None if it holds nothing.

    Raises:
        TableError: it cannot be read.
    """
    with Table(table_name, 1, region_id) as table:
        try:
            item = table.read_snapshot()
        except MissingTableError:
            return None
    return TableSnapshot.from_item(item) if item else None


def make_grid(statuses: Iterable[Status]) -> Grid:
    """Gives the statuses as a table to print."""
    grid = Grid(box=box.SIMPLE_HEAD)
    for name in ("table", "region", "age", "snapshot", "last run", "late by", "next run"):
        grid.add_column(name, overflow="fold")
    for status in statuses:
        snapshot, last = status.snapshot, status.last
        grid.add_row(
            status.table_name,
            f"{region_name(status.region_id)} ({status.region_id})",
            say_between(snapshot.last_modified, datetime.now(UTC)) if snapshot else "empty",
            f"{snapshot.state}, {snapshot.last_modified:%Y-%m-%d %H:%M:%S} UTC" if snapshot else "",
            last.state.name if last else "",
            say_between(last.expected_start_time, last.start_time) if last else "",
            f"in {say_between(datetime.now(UTC), status.next.expected_start_time)}"
            if status.next
            else "by hand"
            if status.last
            else "",
        )
    return grid


def say_between(begun: datetime | None, ended: datetime | None) -> str:
    """Gives how long it is from one time to the other, nothing if one is unknown."""
    return f"{max(0.0, (ended - begun).total_seconds()):,.0f} s" if begun and ended else ""
