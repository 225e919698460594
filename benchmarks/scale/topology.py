"""The topology: market stand-in, store, PostgreSQL, Redis, Prefect's API servers, its services, and workers."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import redis

from benchmarks.scale import services
from benchmarks.servers import Bench, Market
from deployments.automations import apply_automations, read_automations
from deployments.local.environment import STATE
from deployments.local.prepare import open_client, prepare_server
from deployments.local.processes import free_port
from deployments.local.servers import deploy_command, prefect, raise_interrupt, server_command, worker_command
from deployments.local.stack import lock_state

RUNS_PER_WORKER = 4
DEPLOYED = ("--name", "all", "--name", "shard")


class Topology(Bench):
    """Starts and stops the topology. Use it as a context manager, from the main thread."""

    def __init__(self, workers: int) -> None:
        super().__init__(STATE / "scale", first=("services", "api"))
        self.workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self._killed: dict[str, float] = {}  # CPU seconds of killed children

    def __enter__(self) -> Self:
        signal.signal(signal.SIGINT, raise_interrupt)  # even if this process was started with SIGINT ignored
        self.held.enter_context(lock_state())  # another stack would compete for the cores
        # Not in the checkout, which the databases' user may not be able to enter.
        temporary = TemporaryDirectory(prefix="market-data-scale-", dir="/tmp", ignore_cleanup_errors=True)
        self.folder = Path(self.held.enter_context(temporary))  # of the databases
        if not os.geteuid():
            shutil.chown(self.folder, services.SYSTEM_USER, services.SYSTEM_USER)
        self.redis_port = free_port()
        self.redis = redis.Redis(port=self.redis_port)
        # The environment of Prefect's servers, services, commands, workers and flow runs.
        self.settings = self.prefect | self.aws | services.redis_settings(self.redis_port)
        self.settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = services.postgres_url(self.folder)
        # On an empty database two API processes would register the same block types at once, and one of them would log
        # forty errors (3.8.8). No block is needed here; `prefect block register` does it otherwise.
        self.settings["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] = "false"
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        for name in set(self.workers) & set(self.children):
            self.kill(name)  # does not wait for flow runs
        super().__exit__()

    def start_prefect(self) -> None:
        """Start databases, API servers and services, and deploy."""
        self.start_redis()
        services.create_postgres(self.folder)
        self.start("postgres", services.postgres_command(self.folder))
        self.wait_for("postgres", lambda: services.responds(lambda: self.query("SELECT 1")))
        self.run("migrate", [prefect(), "server", "database", "upgrade", "-y"], self.settings)
        self.start_api()
        self.start("services", [prefect(), "server", "services", "start"], self.settings)
        with open_client(self.api_url) as client:
            prepare_server(client)
            apply_automations(client, read_automations())
        self.run("deploy", deploy_command(*DEPLOYED), self.settings)

    def start_workers(self) -> None:
        """Start the workers, and wait until all of them poll for runs."""
        for name in self.workers:
            self.start_worker_named(name)
        online = "SELECT count(*) FROM worker WHERE last_heartbeat_time IS NOT NULL"
        self.wait_for("workers", lambda: self.query(online)[0][0] >= len(self.workers))

    def start_worker_named(self, name: str) -> None:
        """Start a worker; a replacement has a new name in Prefect."""
        words = ("--name", f"{name}.{self.starts[name] + 1}", "--limit", str(RUNS_PER_WORKER))
        self.start(name, worker_command(*words), self.settings | {"ESI_URL": self.urls[Market()]})

    def start_redis(self) -> None:
        """Start Redis, and wait until it answers."""
        self.start("redis", services.redis_command(self.folder, self.redis_port))
        self.wait_for("redis", lambda: services.responds(self.redis.ping))

    def start_api(self) -> None:
        """Start Prefect's API servers, with a log line per request, and wait until they answer."""
        command = [*server_command(self.api_port), "--no-services", "--workers", "2"]
        self.start("api", command, self.settings | {"PREFECT_SERVER_LOGGING_LEVEL": "INFO"})
        self.wait_for("api", self.is_up)

    def query(self, statement: str) -> list[Any]:
        """Return a statement's rows from PostgreSQL, as tuples."""
        return asyncio.run(services.fetch(self.folder, statement))

    def is_consumed(self) -> bool:
        """Return whether Prefect's services have acknowledged all events."""
        groups: Any = self.redis.xinfo_groups("events")
        return bool(groups) and services.count_messages(groups) == 0

    def kill(self, name: str) -> int:
        """Kill a child and its descendants; return the number of processes."""
        child = self.children.pop(name)
        self._killed[name] = self._killed.get(name, 0.0) + child.used_seconds()
        return child.kill()

    def used_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each child, including its descendants and killed predecessors."""
        used = super().used_seconds()
        return {name: used.get(name, 0.0) + self._killed.get(name, 0.0) for name in used | self._killed}
