"""Plays the cases: contestants in turn, each in a process of its own, each table compared with the truth."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from threading import Timer
from typing import Self

import msgspec

from benchmarks.cases import FLOORS, FLOW, FLOWS, Case, Result, region_of
from benchmarks.cpu_profile import Profile
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
        """Measure a case's contestants in turn, A B A B …, each when the servers are idle."""
        results = [Result(case, contestant, []) for contestant in case.contestants]
        with ExitStack() as processes:
            runners = [processes.enter_context(self.warm(case, contestant)) for contestant in case.contestants]
            for number in range(case.repeats):
                for result, runner in zip(results, runners, strict=True):
                    measure = self.measure(case, result.contestant, runner)
                    if number > 0:  # it found memory that the run before has left
                        measure = msgspec.structs.replace(measure, peak_bytes=None)
                    result.measures.append(measure)
        return results

    def profile(self, case: Case, contestant: str) -> Profile:
        """Return the CPU profile of a run."""
        with self.warm(case, contestant) as runner:
            measured = self.measure(case, contestant, runner, is_profiled=True)
        assert measured.profile
        return measured.profile

    @contextmanager
    def warm(self, case: Case, contestant: str) -> Iterator["Runner"]:
        """Start a contestant's process, and have it do a small run."""
        market = market_of(case)
        with (
            Runner(self.servers.environ(market, as_deployed=case.as_deployed)) as runner,
            self.tables.table() as table,
        ):
            runner.run(job_of(Case(case.kind, 1), contestant, table))
            yield runner

    def measure(self, case: Case, contestant: str, runner: "Runner", *, is_profiled: bool = False) -> Measure:
        """Measure one run, and check its table.

        Raises:
            RunError: the run failed.
            WrongTableError: its table is wrong.
        """
        with self.tables.table(self.items_before(case, contestant)) as table:
            self.servers.wait_until_idle()
            measure = runner.run(job_of(case, contestant, table, is_profiled=is_profiled))
            if contestant not in FLOORS:
                items = self.tables.read(table)
                check(items, true_records(case.region_id, market_of(case).index))
                self.keep(case, contestant, items)
        self.say(f"{case.name}: {contestant} {measure.seconds:.2f} s")
        return measure

    def keep(self, case: Case, contestant: str, items: list[Item]) -> None:
        """Keep the items of the flow's first fill as they are when their snapshot has expired, for later cases."""
        if contestant == FLOW and case.kind == "first fill":
            self._stored[case.pages] = grow_old(items)

    def items_before(self, case: Case, contestant: str) -> list[Item]:
        """Return what a run's table holds before it; only the flow looks, so the others' are empty."""
        if contestant not in FLOWS or case.kind not in {"steady state", "not modified"}:
            return []
        if case.pages not in self._stored:
            self.play(Case("first fill", case.pages, contestants=(FLOW,), repeats=1))
        return self._stored[case.pages]


def market_of(case: Case) -> Market:
    """Return the market that a case's contestants see."""
    return Market(NEXT if case.kind == "steady state" else SNAPSHOT_INDEX, case.latency_ms)


def markets_of(cases: list[Case]) -> dict[Market, list[int]]:
    """Return the markets of all cases, and the regions that each must have ready."""
    wanted: dict[Market, set[int]] = {}
    for case in cases:
        for market in (Market(), market_of(case)):  # the first snapshot comes before any other
            wanted.setdefault(market, {WARM_REGION_ID}).add(case.region_id)
    return {market: sorted(region_ids) for market, region_ids in wanted.items()}


def job_of(case: Case, contestant: str, table_name: str, *, is_profiled: bool = False) -> Job:
    """Return a contestant's run of a case."""
    return Job(contestant, case.region_id, table_name, case.fetch_concurrency, is_profiled)


class Runner:
    """A process that does jobs, one after the other. Use it as a context manager."""

    def __init__(self, environ: dict[str, str]) -> None:
        command = [sys.executable, "-m", "benchmarks.measure"]
        self._said = TemporaryFile()  # noqa: SIM115 (closed when the process is)
        self._process = subprocess.Popen(  # noqa: S603 (our own command)
            command, env=environ, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def run(self, job: Job) -> Measure:
        """Do a job.

        Raises:
            RunError: it failed, with the end of what it printed.
        """
        assert self._process.stdin
        assert self._process.stdout
        late = Timer(RUN_SECONDS, self._process.kill)
        late.start()
        try:
            self._process.stdin.write(msgspec.json.encode(job) + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        finally:
            late.cancel()
        if not answer:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")[-3000:]
            raise RunError(f"{job.contestant}, region {job.region_id}: exit code {self._process.wait()}\n{said}")
        return msgspec.json.decode(answer, type=Measure)
