"""Servers as named children with logs: started, waited for and stopped in one way by whatever needs some."""

import signal
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TypeVar

import httpx
import msgspec

from deployments.local.environment import POOL, STORE_VENV, VENV
from deployments.local.processes import Child, ChildError, adopt_orphans, free_port, stop_all, stop_orphans
from deployments.local.progress import Progress

T = TypeVar("T")
START_SECONDS = 120.0
LOOK_SECONDS = 0.05
RUNNING_FLOWS = ("deploy", "worker")
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading them takes longer than a look at a server


class Servers:
    """Children by name. Use it as a context manager from the main thread, or call `stop` in the end."""

    def __init__(
        self,
        logs: Path,
        environ: Mapping[str, str],
        first: Collection[str] = RUNNING_FLOWS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.logs = logs  # the folder of their logs
        self.environ = dict(environ)  # of all of them
        self.children: dict[str, Child] = {}
        self.starts: Counter[str] = Counter()  # by name
        self.progress = Progress()
        self.held = ExitStack()  # what is closed after they have stopped
        self._first = first  # names of those that end before the others do: what uses servers, before the servers
        self._start_seconds = start_seconds  # that each may take until it is ready

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, raise_interrupt)
        adopt_orphans()
        self.held.enter_context(self.progress)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        for names in (self._first, self.children):
            stop_all([self.children[name] for name in names if name in self.children])
            stop_orphans({child.process.pid for child in self.children.values() if child.is_running()})
        self.held.close()

    def start(
        self, name: str, command: list[str], environ: Mapping[str, str] | None = None, *, is_task: bool = False
    ) -> Child:
        """Start a child, with an environment on top of what all get; the log of a second one has a number."""
        self.starts[name] += 1
        stem = f"{name}.{self.starts[name]}" if self.starts[name] > 1 else name
        child = Child(name, command, self.environ | dict(environ or {}), self.logs / f"{stem}.log", is_task=is_task)
        self.children[name] = child
        return child

    def start_market(self, name: str, region_ids: Collection[int], *words: str) -> str:
        """Start a market stand-in that makes the pages of some regions at once; return its address."""
        port = free_port()
        command = [sys.executable, "-m", "deployments.local.market", "--port", str(port), *words]
        self.start(name, [*command, "--prepare", *map(str, region_ids)])
        return f"http://127.0.0.1:{port}"

    def wait_for(
        self, name: str, ready: Callable[[], T], seconds: float | None = None, every_seconds: float = LOOK_SECONDS
    ) -> T:
        """Wait until `ready` returns something true, and return it; raise ChildError if a child ends or it is late."""
        seconds = seconds or self._start_seconds
        deadline = time.monotonic() + seconds
        while not (result := ready()):
            self.check()
            if time.monotonic() > deadline:
                log = self.children[name].log if name in self.children else self.logs
                raise ChildError(f"{name} was not ready after {seconds:.0f} s: see {log}")
            time.sleep(every_seconds)
        return result

    def run(self, name: str, command: list[str], environ: Mapping[str, str]) -> None:
        """Run a command to its end; raise ChildError if it fails or takes too long."""
        self.wait_for(name, self.start(name, command, environ, is_task=True).has_succeeded)
        del self.children[name]

    def check(self) -> None:
        """Raise ChildError, with the last lines of its log, if a child has ended."""
        for child in self.children.values():
            child.check()

    def stop(self) -> None:
        """Stop all of them together."""
        stop_all(list(self.children.values()))


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
        local = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(self.port), "SERVICES": "dynamodb"}
        kept = {"PERSIST_STATE": str(int(self.is_kept)), "STATE_DIR": str(self.folder)}
        return local | kept | {"IOT_MTLS_ENABLED": "0"}

    def is_up(self) -> bool:
        """Return whether it answers."""
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


def answers(url: str) -> bool:
    """Return whether a GET is answered; DynamoDB Local refuses a plain one."""
    try:
        return not httpx.get(url, timeout=1.0, trust_env=False, verify=NO_CERTIFICATES).is_server_error
    except httpx.HTTPError:
        return False
