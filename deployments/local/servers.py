"""Servers as named children with logs: started, waited for and stopped in one way by whatever needs some."""

import signal
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import httpx

from deployments.local.environment import POOL, STORE_VENV, VENV
from deployments.local.processes import Child, StackError, adopt_orphans, free_port, stop_all, stop_orphans
from deployments.local.progress import Progress

LOOK_SECONDS = 0.05
STORE_COMMAND = [str(STORE_VENV / "bin" / "ministack")]
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading them takes longer than a look at a server


class Servers:
    """Children by name. Use it as a context manager from the main thread, or call `stop` in the end."""

    start_seconds = 120.0  # that each may take until it is ready
    stopped_first: tuple[str, ...] = ("deploy", "worker")  # what uses the others

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        self.logs = logs  # the folder of their logs
        self.environ = dict(environ)  # of all of them
        self.children: dict[str, Child] = {}
        self.starts: Counter[str] = Counter()  # by name
        self.progress = Progress()
        self.held = ExitStack()  # what is closed after they have stopped
        self._starting: dict[str, str] = {}  # by name, an address that answers once it is up

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)  # ends the program as Ctrl-C does
        adopt_orphans()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        for names in (self.stopped_first, self.children):
            stop_all([self.children[name] for name in names if name in self.children])
            stop_orphans({child.pid for child in self.children.values() if child.poll() is None})
        self.held.close()

    def start(
        self,
        name: str,
        command: list[str],
        environ: Mapping[str, str] | None = None,
        *,
        url: str = "",
        is_task: bool = False,
    ) -> Child:
        """Start a child with `environ` on top of what all get; the log of a second one has a number.

        If a `url` is given that answers once it is up, `wait_until_up` waits for it.
        """
        self.starts[name] += 1
        stem = f"{name}.{self.starts[name]}" if self.starts[name] > 1 else name
        child = Child(name, command, self.environ | dict(environ or {}), self.logs / f"{stem}.log", is_task=is_task)
        self.children[name] = child
        if url:
            self._starting[name] = url
        return child

    def start_market(self, name: str, region_ids: Collection[int], *words: str) -> str:
        """Start a market stand-in that answers once it has the pages of some regions; return its address."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "deployments.local.market", "--port", str(port), *words]
        self.start(name, [*command, "--prepare", *map(str, region_ids)], url=f"{url}/_stats")
        return url

    def wait_until_up(self) -> None:
        """Wait until all that were started with an address answer."""
        while self._starting:
            name, url = self._starting.popitem()
            self.wait_for(name, partial(answers, url))

    def wait_for(
        self, name: str, ready: Callable[[], bool], seconds: float | None = None, every_seconds: float = LOOK_SECONDS
    ) -> None:
        """Wait until something is ready; raise StackError if a child ends or it is late."""
        seconds = seconds or self.start_seconds
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            self.progress.breathe()
            if time.monotonic() > deadline:
                log = self.children[name].log if name in self.children else self.logs
                raise StackError(f"{name} was not ready after {seconds:.0f} s: see {log}")
            time.sleep(every_seconds)

    def run(self, name: str, command: list[str], environ: Mapping[str, str]) -> None:
        """Run a command to its end; raise StackError if it fails or takes too long."""
        self.wait_for(name, self.start(name, command, environ, is_task=True).has_succeeded)
        del self.children[name]

    def check(self) -> None:
        """Raise StackError, with the last lines of its log, if a child has ended."""
        for child in self.children.values():
            child.check()

    def stop(self) -> None:
        """Stop all of them together."""
        stop_all(list(self.children.values()))


def prefect(*words: str) -> list[str]:
    """Return a command of Prefect's."""
    return [str(VENV / "bin" / "prefect"), *words]


def server_command(port: int) -> list[str]:
    """Return the command that starts a Prefect server on this machine alone."""
    return prefect("server", "start", "--host", "127.0.0.1", "--port", str(port))


def worker_command(*words: str) -> list[str]:
    """Return the command that starts a worker of the pool `market-data`."""
    return prefect("worker", "start", "--pool", POOL, "--type", "process", *words)


def answers(url: str) -> bool:
    """Return whether a GET is answered; DynamoDB Local refuses a plain one."""
    try:
        return not httpx.get(url, timeout=1.0, trust_env=False, verify=NO_CERTIFICATES).is_server_error
    except httpx.HTTPError:
        return False
