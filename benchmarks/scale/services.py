"""PostgreSQL and Redis as Debian packages them, as processes of ours, with data that go with them."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from deployments.local.environment import CHECKOUT
from deployments.local.processes import free_port

COMPOSE = CHECKOUT / "deployments" / "docker" / "compose.yaml"
PACKAGES = "postgresql redis-server"
SYSTEM_USER = "postgres"  # Debian's package makes it
DATABASE = "postgres"  # which `initdb` makes, as it does a user of this name
ONCE = "PREFECT_SERVER_DATABASE_MIGRATE_ON_START"  # off: that is a step of its own, before any server
EVENTS = "events"  # the stream of all messages about runs
QUERY_SECONDS = 60.0


class MissingProgramError(Exception):
    """PostgreSQL or Redis is not installed."""


def find_program(name: str) -> str:
    """Return the path of a program of PostgreSQL, in its newest version, or of Redis, or raise MissingProgramError."""
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")  # Debian keeps them off the PATH
    newest = sorted(versions, key=lambda path: [int(digits) for digits in re.findall(r"\d+", str(path))])
    found = str(newest[-1]) if newest else shutil.which(name)
    if not found:
        raise MissingProgramError(f"{name} is not installed; on Debian: apt-get install {PACKAGES}")
    return found


def unprivileged(command: list[str]) -> list[str]:
    """Return a command that runs as a system user if this program is root's: PostgreSQL refuses to be root's.

    The kernel forgets at a change of user that the child is to die with its parent, so it is asked again; SIGINT has
    PostgreSQL end at once, SIGTERM would have it wait for its clients.
    """
    if os.geteuid():
        return command
    user = [f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--clear-groups", "--pdeathsig", "INT"]
    return ["setpriv", *user, *command]


@contextmanager
def data_folder() -> Iterator[Path]:
    """Make a folder that only the databases' user can enter, and remove it: a checkout may be closed to that user."""
    folder = Path(tempfile.mkdtemp(prefix="market-data-scale-", dir="/tmp"))
    try:
        if not os.geteuid():
            shutil.chown(folder, SYSTEM_USER, SYSTEM_USER)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Postgres:
    """A PostgreSQL of our own, on a socket in a folder that only its user, and root, can enter: without a password."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = str(folder / "postgres")
        self.url = f"postgresql+asyncpg://{DATABASE}@/{DATABASE}?host={folder}"  # as Prefect takes it

    def create(self) -> None:
        """Make the files of its data."""
        options = ["--username", DATABASE, "--encoding=UTF8", "--auth=trust"]
        run(unprivileged([find_program("initdb"), "--pgdata", self._data, *options]))

    def command(self) -> list[str]:
        """Return what runs it."""
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self._folder}"]
        return unprivileged([find_program("postgres"), "-D", self._data, *options])

    def is_up(self) -> bool:
        """Return whether it answers."""
        try:
            return bool(self.query("SELECT 1"))
        except subprocess.CalledProcessError:
            return False

    def query(self, statement: str) -> list[list[str]]:
        """Return the rows of a statement, values as text."""
        where = [f"--host={self._folder}", f"--username={DATABASE}", "--no-psqlrc"]
        form = ["--tuples-only", "--no-align", "--field-separator=\t", "--command", statement]
        return [line.split("\t") for line in run([find_program("psql"), *where, *form]).splitlines() if line]


class Redis:
    """A Redis of our own. It writes down what it gets, so that one that is killed has it again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()

    def settings(self) -> dict[str, str]:
        """Return the compose file's settings of servers that share a Redis, with this one in the place of its own."""
        compose = msgspec.yaml.decode(COMPOSE.read_bytes())["x-server"]["environment"]
        url, port = f"redis://127.0.0.1:{self.port}/1", str(self.port)
        here = {"redis": "127.0.0.1", "6379": port, "redis://redis:6379/1": url}
        shared = {
            name: here.get(value, value) for name, value in compose.items() if "REDIS" in f"{name} {value}".upper()
        }
        return shared | {"PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PORT": port, ONCE: compose[ONCE]}

    def command(self) -> list[str]:
        """Return what runs it."""
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        return unprivileged([find_program("redis-server"), *words, "--save", "", "--appendonly", "yes"])

    def is_up(self) -> bool:
        """Return whether it answers, with all that it had written down."""
        return self.ask("PING") == ["PONG"]

    def is_consumed(self) -> bool:
        """Return whether each of Prefect's services has taken and acknowledged all messages that were sent."""
        lines = self.ask("XINFO", "GROUPS", EVENTS)
        return bool(lines) and count_messages(lines) == 0

    def ask(self, *words: str) -> list[str]:
        """Return the lines of an answer, none if it does not answer."""
        try:
            return run([find_program("redis-cli"), "-p", str(self.port), *words]).splitlines()
        except subprocess.CalledProcessError:
            return []


def count_messages(lines: list[str]) -> int:
    """Return how many messages a stream's groups have not read, or not acknowledged, by Redis' answer about them."""
    pairs = zip(lines[::2], lines[1::2], strict=True)  # a name, and on the next line its value
    return sum(int(value or "0") for name, value in pairs if name in {"lag", "pending"})


def run(command: list[str]) -> str:
    """Run a program to its end and return what it printed."""
    done = subprocess.run(  # noqa: S603 (our own commands, where the databases' user may be)
        command, stdin=subprocess.DEVNULL, cwd="/", capture_output=True, text=True, timeout=QUERY_SECONDS, check=True
    )
    return done.stdout
