"""The servers that all runs share: market stand-ins, a DynamoDB-compatible store, a Prefect server, and a worker."""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Self

import httpx
import msgspec

from benchmarks.cases import API_LATENCY_MS, Case
from deployments.local import environment, prepare, servers
from deployments.local.processes import free_port

IDLE_SECONDS, IDLE_SAMPLE_SECONDS, IDLE_LOAD = 300.0, 0.5, 0.2  # timeout; interval; cores used by all servers
SNAPSHOT_INDEX = 5_931_765  # of May 2026; any other would do
SNAPSHOT_SECONDS, AGE_SECONDS = 300, 60  # interval; age of the snapshot when the clock is stopped
SNAPSHOT_TIME = SNAPSHOT_INDEX * SNAPSHOT_SECONDS  # unix time
DEFAULTS = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILES_PATH", "PREFECT_SERVER_ANALYTICS_ENABLED")
AS_DEPLOYED = ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "PREFECT_RESULTS_PERSIST_BY_DEFAULT")


class Market(msgspec.Struct, frozen=True):
    """A market stand-in with a stopped clock."""

    index: int = SNAPSHOT_INDEX
    latency_ms: int = 0


class Bench(servers.Servers):
    """Starts and stops the servers. Use it as a context manager, from the main thread.

    Prefect's server and the flows have default settings, with their files in `folder`, which is emptied first.
    """

    start_seconds = 900.0  # all regions' pages take minutes to prepare

    def __init__(self, folder: Path = environment.STATE / "bench") -> None:
        super().__init__(folder / "logs", environment.base_environment(os.environ) | {"TMPDIR": str(folder)})
        self.store_port, self.api_port, self.slow_port = free_port(), free_port(), free_port()
        self.store_url = f"http://127.0.0.1:{self.store_port}"
        self.api_url = f"http://127.0.0.1:{self.api_port}/api"
        self.slow_api_url = f"http://127.0.0.1:{self.slow_port}/api"
        self.prefect = environment.prefect_environment(self.api_url, folder / "prefect")
        self.defaults = {name: self.prefect[name] for name in DEFAULTS}
        self.aws = environment.aws_environment(self.store_url, {})
        self.client = prepare.open_client(self.api_url)
        self.urls: dict[Market, str] = {}

    def __enter__(self) -> Self:
        folder = self.logs.parent
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.held.enter_context(self.client)
        return super().__enter__()

    def start_all(self, markets: dict[Market, list[int]]) -> None:
        """Start store, Prefect server and markets, and wait until the markets have prepared their regions' pages."""
        for market, region_ids in markets.items():
            clock = market.index * SNAPSHOT_SECONDS + AGE_SECONDS
            words = ("--at", str(clock), "--latency-ms", str(market.latency_ms))
            name = f"market-{market.index - SNAPSHOT_INDEX}-{market.latency_ms}ms"
            self.urls[market] = self.start_market(name, region_ids, *words)
        self.start_store()
        self.start_prefect()
        self.wait_until_up()

    def start_store(self) -> None:
        """Start ministack, or the DynamoDB Local that is in the folder DYNAMODB_LOCAL, which keeps nothing."""
        command = servers.STORE_COMMAND
        if emulator := os.environ.get("DYNAMODB_LOCAL"):
            words = ["-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar", "-inMemory", "-port"]
            command = ["sh", "-c", 'cd "$0" && exec java "$@"', emulator, *words, str(self.store_port)]
        environ = environment.store_environment(self.store_port, self.logs.parent / "store")
        self.start("store", command, environ, url=f"{self.store_url}/_ministack/health")

    def start_prefect(self) -> None:
        """Start Prefect's server with default settings, and a slow proxy to it."""
        self.start("server", servers.server_command(self.api_port), self.defaults, url=f"{self.api_url}/health")
        words = [str(self.slow_port), str(self.api_port), str(API_LATENCY_MS / 1000)]
        command = [sys.executable, "-m", "benchmarks.slow_api", *words]
        self.start("slow-api", command, url=f"{self.slow_api_url}/health")

    def start_worker(self) -> None:
        """Deploy this project's flows and the empty one, and start a worker."""
        environ = self.contestant_environment(Market(), Case("first fill", as_deployed=True))
        prepare.prepare_server(self.client)
        empty = ("--name", "benchmark", "--pool", environment.POOL, "benchmarks/no_tasks.py:no_tasks")
        self.run("deploy", servers.prefect("--no-prompt", "deploy", "--all"), environ)
        self.run("deploy-empty", servers.prefect("--no-prompt", "deploy", *empty), environ)
        self.start("worker", servers.worker_command(), environ)
        self.wait_for("worker", lambda: prepare.has_worker(self.client))

    def wait_until_idle(self) -> None:
        """Wait until the servers have finished the work of earlier runs, such as writing their events."""
        deadline, load = time.monotonic() + IDLE_SECONDS, 1.0
        while time.monotonic() < deadline and load > IDLE_LOAD:
            before = sum(self.used_seconds().values())
            time.sleep(IDLE_SAMPLE_SECONDS)
            load = (sum(self.used_seconds().values()) - before) / IDLE_SAMPLE_SECONDS

    def used_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each child, including its descendants."""
        return {name: child.used_seconds() for name, child in self.children.items()}

    def count_heads(self, market: Market) -> int:
        """Return how many HEAD requests a market has answered."""
        requests = httpx.get(f"{self.urls[market]}/_stats", trust_env=False).json()["requests"]
        return sum(count for request, count in requests.items() if request.startswith("HEAD "))

    def contestant_environment(self, market: Market, case: Case) -> dict[str, str]:
        """Return the environment of a case's contestants."""
        settings = self.defaults | {name: self.prefect[name] for name in AS_DEPLOYED * case.as_deployed}
        if case.api_latency_ms:
            settings["PREFECT_API_URL"] = self.slow_api_url
        return self.environ | settings | self.aws | {"ESI_URL": self.urls[market]}
