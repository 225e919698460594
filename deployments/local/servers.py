"""Servers as named children with logs: started, waited for and stopped in one way by whatever needs some."""

import signal
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Self, TypeVar

import httpx
import msgspec

from deployments.local.environment import POOL, STORE_VENV, VENV, store_environment
from deployments.local.processes import Child, ChildError, adopt_orphans, stop_all, stop_orphans

T = TypeVar("T")
START_SECONDS = 120.0
LOOK_SECONDS = 0.05
RUNNING_FLOWS = ("deploy", "worker")
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading them takes longer than a look at a server


class Servers:
    """Children by name. Use it as a context manager from the main thread, or call `stop` in the end.

    Args:
        logs: the folder of their logs.
        environ: what all of them get.
        first: names of those that end before the others do: what uses servers, before the servers.
        start_seconds: how long each may take until it is ready.
    """

    def __init__(
        self,
        logs: Path,
        environ: Mapping[str, str],
        first: Collection[str] = RUNNING_FLOWS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.logs = logs
        self.environ = dict(environ)
        self.children: dict[str, Child] = {}
        self.starts: Counter[str] = Counter()  # by name
        self._first = first
        self._start_seconds = start_seconds
        self._adopts = False

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, raise_interrupt)
        adopt_orphans()
        self._adopts = True
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        self.stop()

    def start(
        self, name: str, command: list[str], environ: Mapping[str, str] | None = None, *, is_task: bool = False
    ) -> Child:
        """Start a child; if it is not the first of its name, its log has a number.

        Args:
            name: of the child and its log.
            command: program and arguments.
            environ: on top of what all get.
            is_task: whether it is to end by itself.
        """
        self.starts[name] += 1
        stem = f"{name}.{self.starts[name]}" if self.starts[name] > 1 else name
        child = Child(name, command, self.environ | dict(environ or {}), self.logs / f"{stem}.log", is_task=is_task)
        self.children[name] = child
        return child

    def wait_for(
        self, what: str, ready: Callable[[], T], seconds: float | None = None, every_seconds: float = LOOK_SECONDS
    ) -> T:
        """Wait until something is ready, and return what `ready` returned.

        Args:
            what: the child's name, or other words for the message.
            ready: returns something that is true.
            seconds: at most; `start_seconds` if not given.
            every_seconds: between two looks.

        Raises:
            ChildError: a child has ended meanwhile, or it took too long.
        """
        seconds = seconds or self._start_seconds
        deadline = time.monotonic() + seconds
        while not (result := ready()):
            self.check()
            if time.monotonic() > deadline:
                log = self.children[what].log if what in self.children else self.logs
                raise ChildError(f"{what} was not ready after {seconds:.0f} s: see {log}")
            time.sleep(every_seconds)
        return result

    def run(self, name: str, command: list[str], environ: Mapping[str, str]) -> None:
        """Run a command to its end.

        Raises:
            ChildError: it fails, or takes too long.
        """
        self.wait_for(name, self.start(name, command, environ, is_task=True).has_succeeded)
        del self.children[name]

    def check(self) -> None:
        """Raise if a child has ended.

        Raises:
            ChildError: with the last lines of its log.
        """
        for child in self.children.values():
            child.check()

    def stop(self) -> None:
        """Stop those that end first, then the rest together, each time with the orphans that they have left."""
        for names in (self._first, self.children):
            stop_all([self.children[name] for name in names if name in self.children])
            if self._adopts:
                stop_orphans({child.process.pid for child in self.children.values() if child.is_running()})


class Store(msgspec.Struct, frozen=True):
    """A DynamoDB-compatible server: ministack, or Amazon's DynamoDB Local."""

    port: int
    folder: Path  # of its tables
    is_kept: bool = False  # whether they outlive it
    emulator: str = ""  # the folder of DynamoDBLocal.jar, for DynamoDB Local, which then keeps nothing

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Return what runs it."""
        if not self.emulator:
            return [str(STORE_VENV / "bin" / "ministack")]
        words = ["-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar", "-inMemory", "-port"]
        return ["sh", "-c", 'cd "$0" && exec java "$@"', self.emulator, *words, str(self.port)]

    def environ(self) -> dict[str, str]:
        """Return its settings."""
        return store_environment(self.port, self.folder) | ({} if self.is_kept else {"PERSIST_STATE": "0"})

    def is_up(self) -> bool:
        """Return whether it answers; DynamoDB Local refuses a plain GET."""
        if self.emulator:
            return answers(self.url, (httpx.codes.BAD_REQUEST,))
        return answers(f"{self.url}/_ministack/health")


def raise_interrupt(*_: object) -> None:
    """End the program as Ctrl-C does."""
    raise KeyboardInterrupt


def prefect() -> str:
    """Return the path of Prefect's command."""
    return str(VENV / "bin" / "prefect")


def server_command(port: int) -> list[str]:
    """Return the command that starts a Prefect server on this machine alone."""
    return [prefect(), "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def worker_command(*words: str) -> list[str]:
    """Return the command that starts a worker of the pool `market-data`."""
    return [prefect(), "worker", "start", "--pool", POOL, "--type", "process", *words]


def deploy_command(*words: str) -> list[str]:
    """Return the command that deploys."""
    return [prefect(), "--no-prompt", "deploy", *words]


def market_command(region_ids: Collection[int], at: float | None = None, latency_ms: float = 0) -> list[str]:
    """Return the command that starts a market stand-in.

    Args:
        region_ids: whose pages are made at start.
        at: the unix time at which its clock stands; it goes if not given.
        latency_ms: added to each answer.
    """
    words = ["--latency-ms", str(latency_ms)] + ([] if at is None else ["--at", str(at)])
    return [sys.executable, "-m", "deployments.local.market", *words, "--prepare", *map(str, region_ids)]


def market_url(child: Child) -> str:
    """Return the address that a market stand-in has printed, nothing if it has not yet."""
    start = "market stand-in on "
    lines = child.log.read_text(errors="replace").splitlines()
    return next((line.removeprefix(start) for line in lines if line.startswith(start)), "")


def wait_for_pages(url: str, region_ids: Collection[int], seconds: float) -> None:
    """Wait until a market stand-in has made the pages of regions, each in so many seconds."""
    headers = {"X-Compatibility-Date": "2026-08-18"}
    with httpx.Client(base_url=url, headers=headers, timeout=seconds, trust_env=False) as http:
        for region_id in region_ids:
            http.head(f"/markets/{region_id}/orders", params={"order_type": "all"}).raise_for_status()


def answers(url: str, passing: Collection[int] = ()) -> bool:
    """Return whether a GET is answered with success, or with one of some other status codes."""
    try:
        response = httpx.get(url, timeout=1.0, trust_env=False, verify=NO_CERTIFICATES)
    except httpx.HTTPError:
        return False
    return response.is_success or response.status_code in passing
