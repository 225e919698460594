"""PostgreSQL and Redis from Debian's packages, as child processes with their data in a temporary folder."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import msgspec
import redis

from deployments.local.environment import CHECKOUT
from deployments.local.processes import free_port

COMPOSE = CHECKOUT / "deployments" / "docker" / "compose.yaml"
SYSTEM_USER = "postgres"  # created by Debian's package
DATABASE = "postgres"  # created by `initdb`, with a user of the same name
MIGRATE = "PREFECT_SERVER_DATABASE_MIGRATE_ON_START"  # off: migrated once, before any server starts
COMMAND_SECONDS = 60.0


NO_ANSWER = (OSError, asyncpg.PostgresError, redis.RedisError)


class MissingProgramError(Exception):
    """PostgreSQL or Redis is not installed."""


def find_program(name: str) -> str:
    """Return the path of a program of Redis, or of the newest PostgreSQL; raise MissingProgramError without it."""
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")  # not on Debian's PATH
    found = max(versions, key=lambda path: float(path.parts[4]), default=None) or shutil.which(name)
    if not found:
        raise MissingProgramError(f"{name} is not installed; on Debian: apt-get install postgresql redis-server")
    return str(found)


def unprivileged(command: list[str]) -> list[str]:
    """Return a command that runs as the user `postgres` if this process is root's: PostgreSQL refuses to run as root.

    A change of user clears the parent-death signal, so it is set again, to SIGINT: on SIGTERM PostgreSQL would wait for
    its clients.
    """
    if os.geteuid():
        return command
    user = [f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--clear-groups", "--pdeathsig", "INT"]
    return ["setpriv", *user, *command]


class Postgres:
    """A PostgreSQL server without a password, on a socket in a folder that only its user and root can enter."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._data = str(folder / "postgres")
        self.url = f"postgresql+asyncpg://{DATABASE}@/{DATABASE}?host={folder}"  # for Prefect

    def create(self) -> None:
        """Create the database."""
        options = ["--username", DATABASE, "--encoding=UTF8", "--auth=trust"]
        command = unprivileged([find_program("initdb"), "--pgdata", self._data, *options])
        # In a folder that the databases' user can enter.
        subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)  # noqa: S603 (ours)

    def command(self) -> list[str]:
        """Return the command that starts it."""
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self._folder}"]
        return unprivileged([find_program("postgres"), "-D", self._data, *options])

    def is_up(self) -> bool:
        """Return whether it answers."""
        try:
            return bool(self.query("SELECT 1"))
        except NO_ANSWER:
            return False

    def query(self, statement: str) -> list[Any]:
        """Return a statement's rows, as tuples."""
        return asyncio.run(fetch(self._folder, statement))


async def fetch(folder: str, statement: str) -> list[Any]:
    """Return the rows of a statement, from the server whose socket is in a folder."""
    connection = await asyncpg.connect(host=folder, user=DATABASE, database=DATABASE, timeout=COMMAND_SECONDS)
    try:
        return [tuple(row) for row in await connection.fetch(statement, timeout=COMMAND_SECONDS)]
    finally:
        await connection.close()


class Redis:
    """A Redis server that persists its data, so that they survive a kill."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._port = free_port()
        self._client = redis.Redis(port=self._port)

    def settings(self) -> dict[str, str]:
        """Return the compose file's settings for servers that share a Redis, with this one's address."""
        compose = msgspec.yaml.decode(COMPOSE.read_bytes())["x-server"]["environment"]
        port = str(self._port)
        here = {"redis": "127.0.0.1", "6379": port, "redis://redis:6379/1": f"redis://127.0.0.1:{port}/1"}
        shared = {
            name: here.get(value, value) for name, value in compose.items() if "REDIS" in f"{name}{value}".upper()
        }
        return shared | {"PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PORT": port, MIGRATE: compose[MIGRATE]}

    def command(self) -> list[str]:
        """Return the command that starts it."""
        words = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", self._folder]
        return unprivileged([find_program("redis-server"), *words, "--save", "", "--appendonly", "yes"])

    def is_up(self) -> bool:
        """Return whether it answers and has loaded its data."""
        try:
            return bool(self._client.ping())
        except NO_ANSWER:
            return False

    def is_consumed(self) -> bool:
        """Return whether Prefect's services have acknowledged all events."""
        groups: Any = self._client.xinfo_groups("events")
        return bool(groups) and count_messages(groups) == 0


def count_messages(groups: list[dict[str, Any]]) -> int:
    """Return how many messages a stream's groups have not read or not acknowledged; an unknown number counts as 0."""
    return sum((group["lag"] or 0) + group["pending"] for group in groups)
