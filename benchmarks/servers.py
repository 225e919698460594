"""The servers that all runs share: market stand-ins, a DynamoDB-compatible store, a Prefect server, and a worker."""

import os
import shutil
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import httpx
import msgspec

from benchmarks.cases import API_LATENCY_MS, Case
from deployments.local import servers
from deployments.local.environment import POOL, STATE, Options, aws_environment, base_environment, prefect_environment
from deployments.local.prepare import has_worker, open_client, prepare_server
from deployments.local.processes import free_port

IDLE_SECONDS, IDLE_SAMPLE_SECONDS, IDLE_LOAD = 300.0, 0.5, 0.2  # timeout; interval; cores used by all servers
START_SECONDS = 900.0  # all regions' pages take minutes to prepare
SNAPSHOT_INDEX = 5_931_765  # of May 2026; any other would do
SNAPSHOT_SECONDS, AGE_SECONDS = 300, 60  # interval; age of the snapshot when the clock is stopped
SNAPSHOT_TIME = SNAPSHOT_INDEX * SNAPSHOT_SECONDS  # unix time
DEFAULTS = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILES_PATH", "PREFECT_SERVER_ANALYTICS_ENABLED")
AS_DEPLOYED = ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "PREFECT_RESULTS_PERSIST_BY_DEFAULT")


class Market(msgspec.Struct, frozen=True):
    """A market stand-in with a stopped clock."""

    index: int = SNAPSHOT_INDEX
    latency_ms: int = 0


class Bench:
    """Starts and stops the servers. Use it as a context manager, from the main thread.

    Prefect's server and the flows have default settings, with their files in `folder`, which is emptied first.
    """

    def __init__(self, folder: Path = STATE / "bench", first: tuple[str, ...] = servers.RUNNING_FLOWS) -> None:
        self.folder = folder
        base = base_environment(os.environ) | {"TMPDIR": str(folder)}
        self.servers = servers.Servers(folder / "logs", base, first, START_SECONDS)
        emulator = os.environ.get("DYNAMODB_LOCAL", "")
        self.store = servers.Store(free_port(), folder / "store", emulator=emulator and str(Path(emulator).resolve()))
        self.api_port, self.slow_port = free_port(), free_port()
        self.api_url = f"http://127.0.0.1:{self.api_port}/api"
        self.prefect = prefect_environment(self.api_url, folder / "prefect")
        self.defaults = {name: self.prefect[name] for name in DEFAULTS}
        self.aws = aws_environment(Options(0, "local", ""), self.store.url, {})
        self.urls: dict[Market, str] = {}
        self.held = ExitStack()

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.held.enter_context(self.servers)
        return self

    def __exit__(self, *_: object) -> None:
        self.held.close()

    def start(self, markets: dict[Market, list[int]]) -> None:
        """Start store, Prefect server and markets, and wait until the markets have prepared their regions' pages."""
        children = {}
        for market, ids in markets.items():
            name = f"market-{market.index - SNAPSHOT_INDEX}-{market.latency_ms}ms"
            clock = market.index * SNAPSHOT_SECONDS + AGE_SECONDS
            children[market] = self.servers.start(name, servers.market_command(ids, clock, market.latency_ms))
        self.servers.start("store", self.store.command(), self.store.environ())
        self.start_prefect()
        self.servers.wait_for("store", self.store.is_up)
        for market, child in children.items():
            self.urls[market] = self.servers.wait_for(child.name, partial(servers.market_url, child))
            servers.wait_for_pages(self.urls[market], markets[market], START_SECONDS)

    def start_prefect(self) -> None:
        """Start Prefect's server with default settings, and a slow proxy to it."""
        self.servers.start("server", servers.server_command(self.api_port), self.defaults)
        words = [str(self.slow_port), str(self.api_port), str(API_LATENCY_MS / 1000)]
        self.servers.start("slow-api", [sys.executable, "-m", "benchmarks.slow_api", *words])
        self.servers.wait_for("server", self.is_up)
        self.servers.wait_for("slow-api", lambda: servers.answers(f"http://127.0.0.1:{self.slow_port}/api/health"))

    def is_up(self) -> bool:
        """Return whether Prefect's server answers."""
        return servers.answers(f"{self.api_url}/health")

    def start_worker(self) -> None:
        """Deploy this project's flows and the empty one, and start a worker."""
        environ = self.environ(Market(), Case("first fill", as_deployed=True))
        client = self.held.enter_context(open_client(self.api_url))
        prepare_server(client)
        empty = ("--name", "benchmark", "--pool", POOL, "benchmarks/no_tasks.py:no_tasks")
        self.servers.run("deploy", servers.deploy_command("--all"), environ)
        self.servers.run("deploy-empty", servers.deploy_command(*empty), environ)
        self.servers.start("worker", servers.worker_command(), environ)
        self.servers.wait_for("worker", lambda: has_worker(client))

    def wait_until_idle(self) -> None:
        """Wait until the servers have finished the work of earlier runs, such as writing their events."""
        deadline, load = time.monotonic() + IDLE_SECONDS, 1.0
        while time.monotonic() < deadline and load > IDLE_LOAD:
            before = sum(self.used_seconds().values())
            time.sleep(IDLE_SAMPLE_SECONDS)
            load = (sum(self.used_seconds().values()) - before) / IDLE_SAMPLE_SECONDS

    def used_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each child, including its descendants."""
        return {name: child.used_seconds() for name, child in self.servers.children.items()}

    def count_heads(self, market: Market) -> int:
        """Return how many HEAD requests a market has answered."""
        requests = httpx.get(f"{self.urls[market]}/_stats", trust_env=False).json()["requests"]
        return sum(count for request, count in requests.items() if request.startswith("HEAD "))

    def environ(self, market: Market, case: Case) -> dict[str, str]:
        """Return the environment of a case's contestants."""
        settings = self.defaults | {name: self.prefect[name] for name in AS_DEPLOYED * case.as_deployed}
        if case.api_latency_ms:
            settings["PREFECT_API_URL"] = f"http://127.0.0.1:{self.slow_port}/api"
        return self.servers.environ | settings | self.aws | {"ESI_URL": self.urls[market]}
