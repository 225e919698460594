"""Run the cases: contestants in turn, each run in a fresh process, and check the tables after each run."""

import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import msgspec
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import FlowRun, TaskRun, filters, sorting

from benchmarks.cases import FORGE, Case, Contestant, Measures, region_of
from benchmarks.measure import Figures, Job
from benchmarks.servers import SNAPSHOT_INDEX, Bench, Market
from benchmarks.tables import SNAPSHOT_KEY, Items, Tables
from deployments.local import environment, processes, servers

RUN_SECONDS, START_SECONDS = 900.0, 60.0
DIFFERENTIAL = ("market_data", "universe")  # write only what differs from an earlier first fill
WARM_REGION_ID = 10_000_003  # one page
MEASURE = [sys.executable, "-m", "benchmarks.measure"]


class Runner:
    """Runs contestants against running servers, and prints a line per run."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.tables = Tables(bench.store_url)
        self._filled: dict[int, Items] = {}  # expired tables of first fills, by region

    def run(self, case: Case, repeats: int) -> Measures:
        """Measure a case's contestants in turn (A B A B …)."""
        measures: Measures = {contestant: {} for contestant in case.contestants}
        time_run = {"process start": self.time_process_start, "deployment run": self.time_deployment_run}.get(case.kind)
        for _ in range(repeats):
            for contestant, values in measures.items():
                self.bench.wait_until_idle()
                figures = {"seconds": time_run(contestant)} if time_run else self.measure(case, contestant)
                figures.pop("peak MiB", None)  # includes what the first call imports
                if case.is_warmed:
                    warm = self.measure(case, contestant, WARM_REGION_ID)
                    figures |= {"warmed up": warm["seconds"], "peak MiB": warm["peak MiB"]}
                for figure, value in figures.items():
                    values.setdefault(figure, []).append(value)
                self.bench.progress.say(f"{case.name}: {contestant} {figures['seconds']:.2f} s")
        return measures

    def measure(self, case: Case, contestant: Contestant, warm_region_id: int | None = None) -> Figures:
        """Measure one run, and check its tables."""
        bench, market = self.bench, market_of(case)
        with self.tables.create({WARM_REGION_ID: {}} | self.items_before(case, contestant)) as template:
            bench.wait_until_idle()
            heads, server_seconds = bench.count_heads(market), bench.used_seconds()["server"]
            job = Job(contestant, case.region_ids, template, case.fetch_concurrency, warm_region_id)
            output = call([*MEASURE, msgspec.json.encode(job).decode()], bench.contestant_environment(market, case))
            figures = msgspec.json.decode(output, type=Figures)
            called_at = figures.pop("called at")
            bench.wait_until_idle()
            if contestant != "plain":
                figures["returns"] = figures["seconds"]
                figures["server CPU"] = bench.used_seconds()["server"] - server_seconds
                run = read_run(bench.client, contestant.replace("_", "-"), called_at)
                assert run.end_time
                figures["seconds"] = run.end_time.timestamp() - called_at
            figures["HEAD requests"] = bench.count_heads(market) - heads
            if contestant not in {"no_tasks", "no_work"}:
                self.tables.check(template, case.region_ids, market.index)
            if contestant in DIFFERENTIAL and case.kind == "first fill":
                for region_id in case.region_ids:
                    items = self.tables.read(template.format(region_id=region_id))
                    items[SNAPSHOT_KEY]["expires"] = {"S": "2026-01-01T00:00:00Z"}  # later runs ask for a new snapshot
                    self._filled[region_id] = items
        return figures

    def items_before(self, case: Case, contestant: Contestant) -> dict[int, Items]:
        """Return the items of a run's tables before it, by region; none unless the contestant reads them."""
        if contestant not in DIFFERENTIAL or case.kind not in {"a tenth changed", "not modified"}:
            return {region_id: {} for region_id in case.region_ids}
        if not self._filled.keys() >= set(case.region_ids):
            self.measure(Case("first fill", case.pages, regions=case.regions), contestant)
        return {region_id: self._filled[region_id] for region_id in case.region_ids}

    def time_process_start(self, contestant: Contestant) -> float:
        """Return the seconds from the start of a process until it connects to the market, and kill it then."""
        region_id = region_of(FORGE)
        with self.tables.create({region_id: {}}) as template, socket.create_server(("127.0.0.1", 0)) as market:
            market.settimeout(START_SECONDS)
            environ = self.bench.contestant_environment(Market(), Case("process start"))
            environ["ESI_URL"] = f"http://127.0.0.1:{market.getsockname()[1]}"
            command = [*MEASURE, msgspec.json.encode(Job(contestant, (region_id,), template, 1)).decode()]
            null = subprocess.DEVNULL
            started = time.perf_counter()
            with subprocess.Popen(command, env=environ, cwd=environment.CHECKOUT, stdout=null, stderr=null) as process:  # noqa: S603
                market.accept()[0].recv(1)
                seconds = time.perf_counter() - started
                process.kill()
        return seconds

    def time_deployment_run(self, contestant: Contestant) -> float:
        """Return the seconds of `prefect deployment run --watch` with a running worker, and check the table."""
        environ = self.bench.contestant_environment(Market(), Case("deployment run", as_deployed=True))
        with self.tables.create({region_of(FORGE): {}}) as template:
            words = ["no-tasks/benchmark"]
            if contestant == "market_data":
                region, table = f"region_id={region_of(FORGE)}", f"table_name={template}"
                words = ["market-data/region", "--param", region, "--param", table]
            started = time.perf_counter()
            call(servers.prefect("deployment", "run", *words, "--watch"), environ)
            seconds = time.perf_counter() - started
            if contestant == "market_data":
                self.tables.check(template, [region_of(FORGE)], SNAPSHOT_INDEX)
        return seconds


def market_of(case: Case) -> Market:
    """Return the market stand-in for a case."""
    return Market(SNAPSHOT_INDEX + (case.kind == "a tenth changed"), case.latency_ms)


def markets_of(cases: list[Case]) -> dict[Market, list[int]]:
    """Return the market stand-ins for cases, each with the regions to prepare."""
    wanted: dict[Market, set[int]] = {}
    for case in cases:
        for market in (Market(), market_of(case)):  # the first fill that precedes others is from the default one
            wanted.setdefault(market, {WARM_REGION_ID}).update(case.region_ids)
    return {market: sorted(region_ids) for market, region_ids in wanted.items()}


def call(command: list[str], environ: dict[str, str]) -> bytes:
    """Return a command's output; raise StackError with its last lines if it fails."""
    done = subprocess.run(  # noqa: S603 (our own commands)
        command, env=environ, cwd=environment.CHECKOUT, capture_output=True, timeout=RUN_SECONDS, check=False
    )
    if done.returncode:
        output = (done.stdout + done.stderr)[-3000:].decode(errors="replace")
        raise processes.StackError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{output}")
    return done.stdout


def read_run(client: SyncPrefectClient, flow_name: str, since: float = 0.0) -> FlowRun:
    """Return a flow's latest run that started after a unix time, as Prefect's server recorded it."""
    of_flow = filters.FlowFilter.model_validate({"name": {"any_": [flow_name]}})
    started = filters.FlowRunFilter.model_validate({"start_time": {"after_": datetime.fromtimestamp(since, UTC)}})
    latest = sorting.FlowRunSort.START_TIME_DESC
    return client.read_flow_runs(flow_filter=of_flow, flow_run_filter=started, sort=latest, limit=1)[0]


def read_states(client: SyncPrefectClient, flow_name: str) -> list[list[str]]:
    """Return the time spans of the states of a flow's latest run."""
    flow_run = read_run(client, flow_name)
    wanted = filters.FlowRunFilter.model_validate({"id": {"any_": [flow_run.id]}})
    return list_states(client.read_task_runs(flow_run_filter=wanted), flow_run)


def list_states(task_runs: list[TaskRun], flow_run: FlowRun) -> list[list[str]]:
    """Return a row per state: its task runs, and the seconds from the flow run's start to their first start and end."""
    spans: dict[str, list[list[float]]] = {}
    runs: list[TaskRun | FlowRun] = [*sorted(task_runs, key=lambda run: str(run.start_time)), flow_run]
    for run in runs:
        # A task run's name is its state, followed by pages or part if the state is mapped.
        state = re.sub(r" \d[\d–-]*$", "", run.name) if isinstance(run, TaskRun) else "flow run"
        if flow_run.start_time and run.start_time and run.end_time:
            span = [(at - flow_run.start_time).total_seconds() for at in (run.start_time, run.end_time)]
            spans.setdefault(state, []).append(span)
    ends = {state: max(end for _, end in each) for state, each in spans.items()}
    return [[state, str(len(each)), f"{each[0][0]:.2f}", f"{ends[state]:.2f}"] for state, each in spans.items()]
