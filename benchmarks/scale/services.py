"""PostgreSQL and Redis from Debian's packages, as child processes with their data in a temporary folder."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import msgspec
import redis

from deployments.local.environment import CHECKOUT
from deployments.local.stack import StackError

COMPOSE = CHECKOUT / "deployments" / "docker" / "compose.yaml"
SYSTEM_USER = "postgres"  # created by Debian's package
DATABASE = "postgres"  # created by `initdb`, with a user of the same name
MIGRATE = "PREFECT_SERVER_DATABASE_MIGRATE_ON_START"  # off: migrated once, before any server starts
COMMAND_SECONDS = 60.0


NO_ANSWER = (OSError, asyncpg.PostgresError, redis.RedisError)


def find_program(name: str) -> str:
    """Return the path of a program of Redis, or of the newest PostgreSQL; raise StackError without it."""
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")  # not on Debian's PATH
    found = max(versions, key=lambda path: float(path.parts[4]), default=None) or shutil.which(name)
    if not found:
        raise StackError(f"{name} is not installed; on Debian: apt-get install postgresql redis-server")
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


def create_postgres(folder: Path) -> None:
    """Create a PostgreSQL database without a password: only its user and root can enter the folder of its socket."""
    options = ["--username", DATABASE, "--encoding=UTF8", "--auth=trust"]
    command = unprivileged([find_program("initdb"), "--pgdata", str(folder / "postgres"), *options])
    # In a folder that the databases' user can enter.
    subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)  # noqa: S603 (ours)


def postgres_command(folder: Path) -> list[str]:
    """Return the command that starts PostgreSQL."""
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    return unprivileged([find_program("postgres"), "-D", str(folder / "postgres"), *options])


def postgres_url(folder: Path) -> str:
    """Return PostgreSQL's address, for Prefect."""
    return f"postgresql+asyncpg://{DATABASE}@/{DATABASE}?host={folder}"


async def fetch(folder: Path, statement: str) -> list[Any]:
    """Return the rows of a statement, as tuples."""
    connection = await asyncpg.connect(host=str(folder), user=DATABASE, database=DATABASE, timeout=COMMAND_SECONDS)
    try:
        return [tuple(row) for row in await connection.fetch(statement, timeout=COMMAND_SECONDS)]
    finally:
        await connection.close()


def redis_command(folder: Path, port: int) -> list[str]:
    """Return the command that starts a Redis which persists its data, so that they survive a kill."""
    words = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    return unprivileged([find_program("redis-server"), *words, "--save", "", "--appendonly", "yes"])


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
