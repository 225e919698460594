"""The topology: market stand-in, store, PostgreSQL, Redis, Prefect's API servers, its services, and workers.

PostgreSQL and Redis are from Debian's packages, and keep their data in a temporary folder.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import asyncpg  # type: ignore[import-untyped]
import msgspec
import redis

from benchmarks.servers import Bench, Market
from deployments.automations import apply_automations, read_automations
from deployments.local import environment, prepare, processes, servers, stack

COMPOSE = environment.CHECKOUT / "deployments" / "docker" / "compose.yaml"
SYSTEM_USER = "postgres"  # created by Debian's package
DATABASE = "postgres"  # created by `initdb`, with a user of the same name
MIGRATE = "PREFECT_SERVER_DATABASE_MIGRATE_ON_START"  # off: migrated once, before any server starts
QUERY_SECONDS = 60.0
NO_ANSWER = (OSError, asyncpg.PostgresError, redis.RedisError)
RUNS_PER_WORKER = 4
DEPLOYED = ("--name", "all", "--name", "shard")


class Topology(Bench):
    """Starts and stops the topology. Use it as a context manager, from the main thread."""

    stopped_first = ("services", "api")

    def __init__(self, workers: int) -> None:
        super().__init__(environment.STATE / "scale")
        self.workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self._killed: dict[str, float] = {}  # CPU seconds of killed children

    def __enter__(self) -> Self:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # even if this process was started with it ignored
        self.held.enter_context(stack.lock_state())  # another stack would compete for the cores
        # Not in the checkout, which the databases' user may not be able to enter.
        temporary = TemporaryDirectory(prefix="market-data-scale-", dir="/tmp", ignore_cleanup_errors=True)
        self.folder = Path(self.held.enter_context(temporary))  # of the databases
        if not os.geteuid():
            shutil.chown(self.folder, SYSTEM_USER, SYSTEM_USER)
        self.redis_port = processes.free_port()
        self.redis = redis.Redis(port=self.redis_port)
        # The environment of Prefect's servers, services, commands, workers and flow runs.
        self.settings = self.prefect | self.aws | redis_settings(self.redis_port)
        self.settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = (
            f"postgresql+asyncpg://{DATABASE}@/{DATABASE}?host={self.folder}"
        )
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
        self.start_postgres()
        self.run("migrate", servers.prefect("server", "database", "upgrade", "-y"), self.settings)
        self.start_api()
        self.start("services", servers.prefect("server", "services", "start"), self.settings)
        prepare.prepare_server(self.client)
        apply_automations(self.client, read_automations())
        self.run("deploy", servers.prefect("--no-prompt", "deploy", *DEPLOYED), self.settings)

    def start_postgres(self) -> None:
        """Create and start a PostgreSQL without a password: only its user and root can enter its socket's folder."""
        data = str(self.folder / "postgres")
        options = ["--username", DATABASE, "--encoding=UTF8", "--auth=trust"]
        self.run("initdb", unprivileged("initdb", "--pgdata", data, *options), {})
        socket = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}"]
        self.start("postgres", unprivileged("postgres", "-D", data, *socket))
        self.wait_for("postgres", lambda: responds(lambda: self.query("SELECT 1")))

    def start_redis(self) -> None:
        """Start a Redis which persists its data, so that they survive a kill, and wait until it answers."""
        words = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self.start("redis", unprivileged("redis-server", *words, "--save", "", "--appendonly", "yes"))
        self.wait_for("redis", lambda: responds(self.redis.ping))

    def start_api(self) -> None:
        """Start Prefect's API servers, with a log line per request, and wait until they answer."""
        command = [*servers.server_command(self.api_port), "--no-services", "--workers", "2"]
        environ = self.settings | {"PREFECT_SERVER_LOGGING_LEVEL": "INFO"}
        self.start("api", command, environ, url=f"{self.api_url}/health")
        self.wait_until_up()

    def start_workers(self) -> None:
        """Start the workers, and wait until all of them poll for runs."""
        for name in self.workers:
            self.start_worker_named(name)
        online = "SELECT count(*) FROM worker WHERE last_heartbeat_time IS NOT NULL"
        self.wait_for("workers", lambda: self.query(online)[0][0] >= len(self.workers))

    def start_worker_named(self, name: str) -> None:
        """Start a worker; a replacement has a new name in Prefect."""
        words = ("--name", f"{name}.{self.starts[name] + 1}", "--limit", str(RUNS_PER_WORKER))
        self.start(name, servers.worker_command(*words), self.settings | {"ESI_URL": self.urls[Market()]})

    def query(self, statement: str) -> list[Any]:
        """Return a statement's rows from PostgreSQL, as tuples."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(host=str(self.folder), user=DATABASE, database=DATABASE)
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return asyncio.run(asyncio.wait_for(fetch(), QUERY_SECONDS))

    def is_consumed(self) -> bool:
        """Return whether Prefect's services have acknowledged all events."""
        groups: Any = self.redis.xinfo_groups("events")
        return bool(groups) and count_messages(groups) == 0

    def kill(self, name: str) -> int:
        """Kill a child and its descendants; return the number of processes."""
        child = self.children.pop(name)
        self._killed[name] = self._killed.get(name, 0.0) + child.used_seconds()
        return child.kill_tree()

    def used_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each child, including its descendants and killed predecessors."""
        used = super().used_seconds()
        return {name: used.get(name, 0.0) + self._killed.get(name, 0.0) for name in used | self._killed}


def find_program(name: str) -> str:
    """Return the path of a program of Redis, or of the newest PostgreSQL; raise StackError without it."""
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")  # not on Debian's PATH
    found = max(versions, key=lambda path: float(path.parts[4]), default=None) or shutil.which(name)
    if not found:
        raise processes.StackError(f"{name} is not installed; on Debian: apt-get install postgresql redis-server")
    return str(found)


def unprivileged(name: str, *words: str) -> list[str]:
    """Return a command that runs as the user `postgres` if this process is root's: PostgreSQL refuses to run as root.

    It runs in a folder that this user can enter. A change of user clears the parent-death signal, so it is set again,
    to SIGINT: on SIGTERM PostgreSQL would wait for its clients.
    """
    command = ["env", "--chdir=/", find_program(name), *words]
    if os.geteuid():
        return command
    user = [f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--clear-groups", "--pdeathsig", "INT"]
    return ["setpriv", *user, *command]


def redis_settings(port: int) -> dict[str, str]:
    """Return the compose file's settings for Prefect servers that share a Redis, with this one's address."""
    compose = msgspec.yaml.decode(COMPOSE.read_bytes())["x-server"]["environment"]
    here = {"redis": "127.0.0.1", "6379": str(port), "redis://redis:6379/1": f"redis://127.0.0.1:{port}/1"}
    shared = {name: here.get(value, value) for name, value in compose.items() if "REDIS" in f"{name}{value}".upper()}
    return shared | {"PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PORT": str(port), MIGRATE: compose[MIGRATE]}


def responds(ask: Callable[[], object]) -> bool:
    """Return whether a database answers a question, and has loaded its data."""
    try:
        return bool(ask())
    except NO_ANSWER:
        return False


def count_messages(groups: list[dict[str, Any]]) -> int:
    """Return how many messages a stream's groups have not read or not acknowledged; an unknown number counts as 0."""
    return sum((group["lag"] or 0) + group["pending"] for group in groups)
