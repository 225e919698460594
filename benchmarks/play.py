"""Plays the cases: contestants in turn, each run in a process of its own, each table compared with the truth."""

import subprocess
import sys
from collections.abc import Callable

import msgspec

from benchmarks.cases import FLOORS, FLOW, Case, Result, region_of
from benchmarks.measure import Job, Measure
from benchmarks.servers import SNAPSHOT_INDEX, Market, Servers
from benchmarks.tables import Item, Tables, check, grow_old, true_records
from deployments.local.environment import CHECKOUT

RUN_SECONDS = 600.0
WARM_REGION_ID = region_of(1)
NEXT = SNAPSHOT_INDEX + 1


class RunError(Exception):
    """A contestant failed."""


class Play:
    """Runs contestants against servers that are up.

    Args:
        servers: that all runs share.
        say: takes a line of progress.
    """

    def __init__(self, servers: Servers, say: Callable[[str], None]) -> None:
        self.servers = servers
        self.tables = Tables(servers.store_url)
        self.say = say
        self._stored: dict[int, list[Item]] = {}

    def play(self, case: Case) -> list[Result]:
        """Measures a case's contestants in turn, A B A B …, each when the servers are idle."""
        results = [Result(case, contestant, []) for contestant in case.contestants]
        for _ in range(case.repeats):
            for result in results:
                result.measures.append(self.measure(case, result.contestant))
        return results

    def measure(self, case: Case, contestant: str, *, is_profiled: bool = False) -> Measure:
        """Measures one run, and checks its table.

        Raises:
            RunError: the run failed.
            WrongTableError: its table is wrong.
        """
        market = market_of(case)
        with self.tables.table() as warm, self.tables.table(self.items_before(case, contestant)) as table:
            self.servers.wait_until_idle()
            job = Job(
                contestant,
                case.region_id,
                table,
                case.fetch_concurrency,
                WARM_REGION_ID,
                warm,
                is_profiled=is_profiled,
                has_heartbeats=case.setting != "no heartbeats",
            )
            measure = run(job, self.servers.environ(market, as_deployed=case.setting == "as deployed"))
            if contestant not in FLOORS:
                items = self.tables.read(table)
                check(items, true_records(case.region_id, market.index))
                self.keep(case, contestant, items)
        self.say(f"{case.name}: {contestant} {measure.seconds:.2f} s")
        return measure

    def keep(self, case: Case, contestant: str, items: list[Item]) -> None:
        """Keeps the items of the flow's first fill as they are when their snapshot has expired, for later cases."""
        if contestant == FLOW and case.kind == "first fill":
            self._stored[case.pages] = grow_old(items)

    def items_before(self, case: Case, contestant: str) -> list[Item]:
        """Gives what a run's table holds before it; only the flow looks, so the others' are empty."""
        if contestant != FLOW or case.kind not in {"steady state", "not modified"}:
            return []
        if case.pages not in self._stored:
            self.measure(Case("first fill", case.pages), FLOW)
        return self._stored[case.pages]


def market_of(case: Case) -> Market:
    """Gives the market that a case's contestants see."""
    return Market(NEXT if case.kind == "steady state" else SNAPSHOT_INDEX, case.latency_ms)


def markets_of(cases: list[Case]) -> dict[Market, list[int]]:
    """Gives the markets of all cases, and the regions that each must have ready."""
    wanted: dict[Market, set[int]] = {}
    for case in cases:
        for market in (Market(), market_of(case)):  # the first snapshot comes before any other
            wanted.setdefault(market, {WARM_REGION_ID}).add(case.region_id)
    return {market: sorted(region_ids) for market, region_ids in wanted.items()}


def run(job: Job, environ: dict[str, str]) -> Measure:
    """Runs a job in a process of its own.

    Raises:
        RunError: with the end of what it printed.
    """
    command = [sys.executable, "-m", "benchmarks.measure", msgspec.json.encode(job).decode()]
    done = subprocess.run(  # noqa: S603 (our own command)
        command, env=environ, cwd=CHECKOUT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    if done.returncode:
        raise RunError(f"{job.contestant}, region {job.region_id}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Measure)
