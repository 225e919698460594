"""What all runs share: market stand-ins, a DynamoDB-compatible store, a Prefect server, and if asked for a worker."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

import httpx
import msgspec

from benchmarks.tables import SEED
from deployments.local.environment import (
    POOL,
    STATE,
    STORE_VENV,
    Options,
    aws_environment,
    base_environment,
    prefect_environment,
    store_environment,
)
from deployments.local.processes import Child, ChildError, adopt_orphans, free_port, stop_orphans
from deployments.local.stack import answers, prefect, rest_of_line, server_command
from tests.support.api import Api

T = TypeVar("T")
FOLDER = STATE / "bench"
IDLE_SECONDS, IDLE_SAMPLE_SECONDS, IDLE_LOAD = 300.0, 0.5, 0.2  # at most; looked at; of a core, all servers together
START_SECONDS = 300.0  # the largest market takes a minute to make
SNAPSHOT_INDEX = 5_931_765  # of May 2026; any other would do
SNAPSHOT_SECONDS = 300
SECONDS_IN = 60  # of the snapshot that have passed; its pages can be fetched in what is left
AS_DEPLOYED = ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "PREFECT_RESULTS_PERSIST_BY_DEFAULT")


class Market(msgspec.Struct, frozen=True):
    """A market stand-in whose clock stands."""

    index: int = SNAPSHOT_INDEX
    latency_ms: int = 0

    @property
    def name(self) -> str:
        """Names it in messages and logs."""
        return f"market-{self.index - SNAPSHOT_INDEX}-{self.latency_ms}ms"

    def command(self, region_ids: list[int]) -> list[str]:
        """Return what starts it."""
        at = self.index * SNAPSHOT_SECONDS + SECONDS_IN
        options = {"--seed": SEED, "--every": SNAPSHOT_SECONDS, "--at": at, "--latency-ms": self.latency_ms}
        words = [str(word) for option in options.items() for word in option]
        return [sys.executable, "-m", "deployments.local.market", *words, "--prepare", *map(str, region_ids)]


class Servers:
    """Starts what is asked for, and stops all of it. Use it as a context manager, from the main thread."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        store_port, self._api_port = free_port(), free_port()
        self.store_url = f"http://127.0.0.1:{store_port}"
        self._store = store_environment(store_port, FOLDER / "store") | {"PERSIST_STATE": "0"}
        self.api = Api(f"http://127.0.0.1:{self._api_port}/api")
        self._base = base_environment(os.environ) | {"TMPDIR": str(FOLDER)}
        self._urls: dict[Market, str] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        adopt_orphans()
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            child.stop()
            stop_orphans({other.process.pid for other in self._children if other.is_running()})
        self.api.close()

    def start(self, markets: dict[Market, list[int]]) -> None:
        """Start store, Prefect server and markets, and wait until each has its regions' pages ready."""
        children = {
            market: self._start(market.name, market.command(ids), self._base) for market, ids in markets.items()
        }
        self._start("store", [str(STORE_VENV / "bin" / "ministack")], self._base | self._store)
        self._start("server", server_command(self._api_port), self._base | self._prefect_settings)
        for market, ids in markets.items():
            self._urls[market] = self._wait(children[market])
            for region_id in ids:
                wait_for_pages(self._urls[market], region_id)
        self._wait_for(lambda: answers(f"{self.store_url}/_ministack/health"))
        self._wait_for(self.api.is_up)

    def wait_until_idle(self) -> None:
        """Wait until the servers have done what earlier runs have left them, such as events to be written down."""
        deadline = time.monotonic() + IDLE_SECONDS
        while time.monotonic() < deadline:
            before = self._used_seconds()
            time.sleep(IDLE_SAMPLE_SECONDS)
            if self._used_seconds() - before < IDLE_LOAD * IDLE_SAMPLE_SECONDS:
                return

    def _used_seconds(self) -> float:
        return sum(used_seconds(child.process.pid) for child in self._children if child.is_running())

    def start_worker(self, market: Market) -> None:
        """Deploy the flows of this project and the empty one, and start a worker for them."""
        environ = self.environ(market, as_deployed=True)
        self.api.create_pool(POOL)
        empty = ["--name", "benchmark", "--pool", POOL, "benchmarks/no_tasks.py:no_tasks"]
        for name, words in (("deploy", ["--all"]), ("deploy-empty", empty)):
            task = self._start(name, [prefect(), "--no-prompt", "deploy", *words], environ, is_task=True)
            self._wait_for(task.has_succeeded)
        self._start("worker", [prefect(), "worker", "start", "--pool", POOL, "--type", "process"], environ)
        self._wait_for(lambda: self.api.has_worker(POOL))

    def environ(self, market: Market, *, as_deployed: bool = False) -> dict[str, str]:
        """Return the environment of a contestant.

        Args:
            market: that it finds in ESI_URL.
            as_deployed: whether with what the stack sets on top of Prefect's defaults for flow runs.
        """
        prefect_settings = self._prefect_settings
        if not as_deployed:
            prefect_settings = {name: value for name, value in prefect_settings.items() if name not in AS_DEPLOYED}
        aws = aws_environment(Options(0, "local", ""), self.store_url, {})
        return self._base | prefect_settings | aws | {"ESI_URL": self._urls[market]}

    @property
    def _prefect_settings(self) -> dict[str, str]:
        return prefect_environment(self.api.url, FOLDER / "prefect")

    def _start(self, name: str, command: list[str], environ: dict[str, str], *, is_task: bool = False) -> Child:
        child = Child(name, command, environ, FOLDER / "logs" / f"{name}.log", is_task=is_task)
        self._children.append(child)
        return child

    def _wait(self, market: Child) -> str:
        return self._wait_for(lambda: rest_of_line(market.log, "market stand-in on "))

    def _wait_for(self, ready: Callable[[], T]) -> T:
        deadline = time.monotonic() + START_SECONDS
        while not (result := ready()):
            for child in self._children:
                child.check()
            if time.monotonic() > deadline:
                raise ChildError(f"not all servers were ready after {START_SECONDS:.0f} s: see {FOLDER / 'logs'}")
            time.sleep(0.05)
        return result


def used_seconds(pid: int) -> float:
    """Return the CPU seconds of a process (Linux)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def wait_for_pages(url: str, region_id: int) -> None:
    """Wait until a market has made a region's pages."""
    httpx.head(
        f"{url}/markets/{region_id}/orders",
        params={"order_type": "all"},
        headers={"X-Compatibility-Date": "2026-08-18"},
        timeout=START_SECONDS,
        trust_env=False,
    ).raise_for_status()
