"""PostgreSQL and Redis as Debian packages them, as processes of ours: on 127.0.0.1, with data that go with them."""

import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.local.processes import free_port

PACKAGES = "postgresql redis-server"
SYSTEM_USER = "postgres"  # Debian's package makes it
DATABASE = "prefect"
EVENTS = "events"  # the stream of all messages about runs
QUERY_SECONDS = 60.0


class MissingProgramError(Exception):
    """PostgreSQL or Redis is not installed."""


def find_program(name: str) -> str:
    """Return the path of a program of PostgreSQL's, of its newest version, or of Redis'.

    Raises:
        MissingProgramError: it is not installed, with the names of the packages.
    """
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")  # Debian keeps them off the PATH
    newest = sorted(versions, key=lambda path: [int(digits) for digits in re.findall(r"\d+", str(path))])
    found = str(newest[-1]) if newest else shutil.which(name)
    if not found:
        raise MissingProgramError(f"{name} is not installed; on Debian: apt-get install {PACKAGES}")
    return found


def unprivileged(command: list[str]) -> list[str]:
    """Return a command that runs as a system user if this program is root's: PostgreSQL refuses to be root's.

    The kernel forgets at a change of user that the child is to die with its parent, so it is told again; SIGINT has
    PostgreSQL end at once, SIGTERM would have it wait for its clients.

    Raises:
        MissingProgramError: this is root, and there is no such user.
    """
    if os.geteuid():
        return command
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise MissingProgramError(
            f"PostgreSQL refuses to be root's, and there is no user {SYSTEM_USER}; Debian: apt-get install {PACKAGES}"
        ) from None
    user = [f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--clear-groups", "--pdeathsig", "INT"]
    return ["setpriv", *user, *command]


@contextmanager
def data_folder() -> Iterator[Path]:
    """Make a folder that belongs to whom the databases run as, and remove it: a checkout may be closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="market-data-scale-", dir="/tmp"))
    try:
        give_away(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def give_away(path: Path) -> None:
    """Return a file or folder to whom the databases run as."""
    if not os.geteuid():
        shutil.chown(path, SYSTEM_USER, SYSTEM_USER)


class Postgres:
    """A PostgreSQL of our own, with Debian's settings and an empty database.

    Args:
        folder: where its data go, of whom it runs as.
    """

    def __init__(self, folder: Path) -> None:
        self._data = folder / "postgres"
        self._password = secrets.token_urlsafe()
        self.port = free_port()

    @property
    def url(self) -> str:
        """Its address as Prefect takes it."""
        return f"postgresql+asyncpg://{DATABASE}:{self._password}@127.0.0.1:{self.port}/{DATABASE}"

    def create(self) -> None:
        """Make the files of its data.

        Raises:
            MissingProgramError: it is not installed.
            subprocess.CalledProcessError: it could not, and says why.
        """
        initdb = [find_program("initdb"), "--pgdata", str(self._data), "--username", DATABASE, "--encoding=UTF8"]
        with tempfile.NamedTemporaryFile("w", prefix="market-data-scale-", dir="/tmp") as file:
            file.write(self._password)
            file.flush()
            give_away(Path(file.name))
            run(unprivileged([*initdb, "--auth=scram-sha-256", f"--pwfile={file.name}"]))

    def command(self) -> list[str]:
        """Return what runs it."""
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return unprivileged([find_program("postgres"), "-D", str(self._data), *words])

    def is_up(self) -> bool:
        """Return whether it answers, and have the database then."""
        try:
            if not self.query(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'", "postgres"):  # noqa: S608
                self.query(f"CREATE DATABASE {DATABASE}", "postgres")
        except subprocess.CalledProcessError:
            return False
        return True

    def query(self, statement: str, database: str = DATABASE) -> list[list[str]]:
        """Return the rows of a statement, values as text.

        Raises:
            subprocess.CalledProcessError: it refuses, and says why.
        """
        where = ["--host=127.0.0.1", f"--port={self.port}", f"--username={DATABASE}", f"--dbname={database}"]
        command = [find_program("psql"), *where, "--no-psqlrc", "--tuples-only", "--no-align", "--field-separator=\t"]
        lines = run([*command, "--command", statement], PGPASSWORD=self._password).splitlines()
        return [line.split("\t") for line in lines if line]


class Redis:
    """A Redis of our own. It writes down what it is told, so that one that is killed knows it again.

    Args:
        folder: where its data go, of whom it runs as.
    """

    def __init__(self, folder: Path) -> None:
        self._data = folder
        self.port = free_port()

    def environment(self) -> dict[str, str]:
        """Return the settings of servers that meet in it: messages, their order, leases, services' turns."""
        return {
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(self.port),
            "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_HOST": "127.0.0.1",
            "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PORT": str(self.port),
            "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{self.port}/1",
        }

    def command(self) -> list[str]:
        """Return what runs it.

        Raises:
            MissingProgramError: it is not installed.
        """
        options = {"--port": self.port, "--bind": "127.0.0.1", "--dir": self._data, "--save": "", "--appendonly": "yes"}
        return unprivileged([find_program("redis-server"), *(str(word) for pair in options.items() for word in pair)])

    def is_up(self) -> bool:
        """Return whether it answers, and have read what it had written down."""
        try:
            return self.ask("PING") == ["PONG"]
        except subprocess.CalledProcessError:
            return False

    def is_consumed(self) -> bool:
        """Return whether each of Prefect's services has taken and done with all messages that were sent."""
        try:
            return count_messages(self.ask("XINFO", "GROUPS", EVENTS)) == 0
        except subprocess.CalledProcessError:
            return False

    def ask(self, *words: str) -> list[str]:
        """Return the lines of an answer.

        Raises:
            subprocess.CalledProcessError: it does not answer.
        """
        return run([find_program("redis-cli"), "-p", str(self.port), *words]).splitlines()


def count_messages(lines: list[str]) -> int:
    """Return how many messages a stream's groups have not read, or not acknowledged, by Redis' answer about them."""
    pairs = zip(lines[::2], lines[1::2], strict=True)  # a name, and on the next line its value
    return sum(int(value or "0") for name, value in pairs if name in {"lag", "pending"})


def run(command: list[str], **environ: str) -> str:
    """Run a program to its end and return what it printed."""
    done = subprocess.run(  # noqa: S603 (our own commands)
        command,
        stdin=subprocess.DEVNULL,
        env=os.environ | environ,
        cwd="/",  # where whoever it runs as may be
        capture_output=True,
        text=True,
        timeout=QUERY_SECONDS,
        check=True,
    )
    return done.stdout
