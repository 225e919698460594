"""Plays the cases: contestants in turn, each run in a process of its own, each table compared with the truth."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from benchmarks.cases import DECLARED, FLOW, FORGE, NO_TASKS, NO_WORK, PLAIN, UNIVERSE, Case, Measures, region_of
from benchmarks.measure import Figures, Job
from benchmarks.recorded import read_run
from benchmarks.servers import SNAPSHOT_INDEX, Bench, Market
from benchmarks.tables import Items, Tables, expire
from deployments.local.environment import CHECKOUT
from deployments.local.servers import prefect

RUN_SECONDS, START_SECONDS = 900.0, 60.0
KEEPING = (FLOW, DECLARED, UNIVERSE)  # read a table before they write
WARM_REGION_ID = 10_000_003  # one page
MEASURE = [sys.executable, "-m", "benchmarks.measure"]
DEPLOYED = {NO_TASKS: ["no-tasks/benchmark"], FLOW: ["market-data/region", "--param", f"region_id={region_of(FORGE)}"]}


class RunError(Exception):
    """A contestant failed."""


class Play:
    """Runs contestants against servers that are up, and says how each run went."""

    def __init__(self, bench: Bench, say: Callable[[str], None]) -> None:
        self.bench = bench
        self.tables = Tables(bench.store.url)
        self.say = say
        self._stored: dict[int, Items] = {}  # by region, after the flow's first fill

    def play(self, case: Case) -> Measures:
        """Measure a case's contestants in turn, A B A B …, each when the servers are idle."""
        found: Measures = {contestant: {} for contestant in case.contestants}
        timed = {"process start": self.time_start, "deployment run": self.time_deployment}.get(case.kind)
        for _ in range(case.repeats):
            for contestant, values in found.items():
                self.bench.wait_until_idle()
                figures = timed(contestant) if timed else self.measure(case, contestant)
                figures.pop("peak MiB", None)  # with whatever the first call has imported
                if case.is_warmed:
                    warm = self.measure(case, contestant, WARM_REGION_ID)
                    figures |= {"warmed up": warm["seconds"], "peak MiB": warm["peak MiB"]}
                for figure, value in figures.items():
                    values.setdefault(figure, []).append(value)
                self.say(f"{case.name}: {contestant} {figures['seconds']:.2f} s")
        return found

    def measure(self, case: Case, contestant: str, warm_region_id: int | None = None) -> Figures:
        """Measure one run, and raise unless its tables are right."""
        bench, market = self.bench, market_of(case)
        with self.tables.made({WARM_REGION_ID: {}} | self.items_before(case, contestant)) as template:
            bench.wait_until_idle()
            heads, server_seconds = bench.count_heads(market), bench.used_seconds()["server"]
            job = Job(contestant, case.region_ids, template, case.fetch_concurrency, warm_region_id)
            answer = call(MEASURE, bench.environ(market, case), msgspec.json.encode(job))
            figures = msgspec.json.decode(answer, type=Figures)
            called_at = figures.pop("called at")
            if contestant != PLAIN:
                run = read_run(bench.api_url, contestant.replace("_", "-"), called_at)
                assert run.end_time
                figures |= {"seconds": run.end_time.timestamp() - called_at, "returns": figures["seconds"]}
            bench.wait_until_idle()
            if contestant != PLAIN:
                figures["server CPU"] = bench.used_seconds()["server"] - server_seconds
            figures["HEADs"] = bench.count_heads(market) - heads
            if contestant not in {NO_TASKS, NO_WORK}:
                self.tables.check(template, case.region_ids, market.index)
            if contestant in KEEPING and case.kind == "first fill":
                for region_id in case.region_ids:
                    self._stored[region_id] = expire(self.tables.read(template.format(region_id=region_id)))
        return figures

    def items_before(self, case: Case, contestant: str) -> dict[int, Items]:
        """Return what a run's tables hold before it; only the flow looks, so the others' are empty."""
        if contestant not in KEEPING or case.kind not in {"a tenth changed", "not modified"}:
            return {region_id: {} for region_id in case.region_ids}
        if not self._stored.keys() >= set(case.region_ids):
            self.measure(Case("first fill", case.pages, regions=case.regions), contestant)
        return {region_id: self._stored[region_id] for region_id in case.region_ids}

    def time_start(self, contestant: str) -> Figures:
        """Return the seconds from the start of a process to its first byte to the market, and end it then."""
        region_id = region_of(FORGE)
        with self.tables.made({region_id: {}}) as template, socket.create_server(("127.0.0.1", 0)) as market:
            market.settimeout(START_SECONDS)
            environ = self.bench.environ(Market(), Case("process start"))
            environ["ESI_URL"] = f"http://127.0.0.1:{market.getsockname()[1]}"
            started = time.perf_counter()
            pipe, null = subprocess.PIPE, subprocess.DEVNULL
            with subprocess.Popen(MEASURE, env=environ, cwd=CHECKOUT, stdin=pipe, stdout=null, stderr=null) as process:  # noqa: S603
                assert process.stdin
                process.stdin.write(msgspec.json.encode(Job(contestant, (region_id,), template, 1)))
                process.stdin.close()
                market.accept()[0].recv(1)
                seconds = time.perf_counter() - started
                process.kill()
        return {"seconds": seconds}

    def time_deployment(self, contestant: str) -> Figures:
        """Return the seconds of `prefect deployment run --watch` with a worker that is up, and check the table."""
        environ = self.bench.environ(Market(), Case("deployment run", as_deployed=True))
        with self.tables.made({region_of(FORGE): {}}) as template:
            command = [prefect(), "deployment", "run", *DEPLOYED[contestant], "--watch"]
            command += ["--param", f"table_name={template}"] if contestant == FLOW else []
            started = time.perf_counter()
            call(command, environ)
            seconds = time.perf_counter() - started
            if contestant == FLOW:
                self.tables.check(template, [region_of(FORGE)], SNAPSHOT_INDEX)
        return {"seconds": seconds}


def market_of(case: Case) -> Market:
    """Return the market that a case's contestants see."""
    return Market(SNAPSHOT_INDEX + (case.kind == "a tenth changed"), case.latency_ms)


def markets_of(cases: list[Case]) -> dict[Market, list[int]]:
    """Return the markets of all cases, and the regions that each must have ready."""
    wanted: dict[Market, set[int]] = {}
    for case in cases:
        for market in (Market(), market_of(case)):  # the first snapshot comes before any other
            wanted.setdefault(market, {WARM_REGION_ID}).update(case.region_ids)
    return {market: sorted(region_ids) for market, region_ids in wanted.items()}


def call(command: list[str], environ: dict[str, str], given: bytes = b"") -> bytes:
    """Return what a command prints; raise RunError with the end of that if it fails."""
    done = subprocess.run(  # noqa: S603 (our own commands)
        command, env=environ, cwd=CHECKOUT, input=given, capture_output=True, timeout=RUN_SECONDS, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:].decode(errors="replace")
        raise RunError(f"{' '.join(command)} {given.decode()} ended with exit code {done.returncode}:\n{said}")
    return done.stdout
