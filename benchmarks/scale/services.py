"""PostgreSQL and Redis from Debian's packages, as child processes with their data in a temporary folder."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from deployments.local.environment import CHECKOUT
from deployments.local.processes import free_port

COMPOSE = CHECKOUT / "deployments" / "docker" / "compose.yaml"
SYSTEM_USER = "postgres"  # created by Debian's package
DATABASE = "postgres"  # created by `initdb`, with a user of the same name
MIGRATE = "PREFECT_SERVER_DATABASE_MIGRATE_ON_START"  # off: migrated once, before any server starts
COMMAND_SECONDS = 60.0


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
        self._folder = folder
        self._data = str(folder / "postgres")
        self.url = f"postgresql+asyncpg://{DATABASE}@/{DATABASE}?host={folder}"  # for Prefect

    def create(self) -> None:
        """Create the database."""
        options = ["--username", DATABASE, "--encoding=UTF8", "--auth=trust"]
        run(unprivileged([find_program("initdb"), "--pgdata", self._data, *options]))

    def command(self) -> list[str]:
        """Return the command that starts it."""
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self._folder}"]
        return unprivileged([find_program("postgres"), "-D", self._data, *options])

    def is_up(self) -> bool:
        """Return whether it answers."""
        try:
            return bool(self.query("SELECT 1"))
        except subprocess.CalledProcessError:
            return False

    def query(self, statement: str) -> list[list[str]]:
        """Return a statement's rows, with values as text."""
        where = [f"--host={self._folder}", f"--username={DATABASE}", "--no-psqlrc"]
        form = ["--tuples-only", "--no-align", "--field-separator=\t", "--command", statement]
        return [line.split("\t") for line in run([find_program("psql"), *where, *form]).splitlines() if line]


class Redis:
    """A Redis server that persists its data, so that they survive a kill."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = str(free_port())

    def settings(self) -> dict[str, str]:
        """Return the compose file's settings for servers that share a Redis, with this one's address."""
        compose = msgspec.yaml.decode(COMPOSE.read_bytes())["x-server"]["environment"]
        here = {"redis": "127.0.0.1", "6379": self._port, "redis://redis:6379/1": f"redis://127.0.0.1:{self._port}/1"}
        shared = {
            name: here.get(value, value) for name, value in compose.items() if "REDIS" in f"{name}{value}".upper()
        }
        return shared | {"PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PORT": self._port, MIGRATE: compose[MIGRATE]}

    def command(self) -> list[str]:
        """Return the command that starts it."""
        words = ["--port", self._port, "--bind", "127.0.0.1", "--dir", str(self._folder)]
        return unprivileged([find_program("redis-server"), *words, "--save", "", "--appendonly", "yes"])

    def is_up(self) -> bool:
        """Return whether it answers and has loaded its data."""
        return self.ask("PING") == ["PONG"]

    def is_consumed(self) -> bool:
        """Return whether Prefect's services have acknowledged all events."""
        lines = self.ask("XINFO", "GROUPS", "events")
        return bool(lines) and count_messages(lines) == 0

    def ask(self, *words: str) -> list[str]:
        """Return the lines of a command's response, none if there is no response."""
        try:
            return run([find_program("redis-cli"), "-p", self._port, *words]).splitlines()
        except subprocess.CalledProcessError:
            return []


def count_messages(lines: list[str]) -> int:
    """Return how many messages a stream's groups have not read or not acknowledged, from `XINFO GROUPS`."""
    pairs = zip(lines[::2], lines[1::2], strict=True)  # names and values
    return sum(int(value or "0") for name, value in pairs if name in {"lag", "pending"})


def run(command: list[str]) -> str:
    """Run a command to its end and return its output."""
    done = subprocess.run(  # noqa: S603 (our own commands, in a folder that the databases' user can enter)
        command, stdin=subprocess.DEVNULL, cwd="/", capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True
    )
    return done.stdout
