"""Start and stop the embedded stack: market stand-in, DynamoDB-compatible store, Prefect server and worker."""

import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, TypeVar

import httpx
import msgspec

from deployments.local.environment import (
    POOL,
    STATE,
    STORE_VENV,
    VENV,
    Options,
    aws_environment,
    base_environment,
    prefect_environment,
    store_environment,
)
from deployments.local.processes import Child, ChildError, adopt_orphans, free_port, stop_all, stop_orphans
from deployments.local.progress import Progress

T = TypeVar("T")
START_SECONDS = 120.0
FREE_BYTES = 200 * 2**20  # one region's database and logs of a day
UI_PORT = 4200  # Prefect's default, if it is free
ADDRESSES = STATE / "stack.json"
RUNNING_FLOWS = ["deploy", "worker"]  # the children that end first


class Addresses(msgspec.Struct, frozen=True):
    """The addresses of the running stack."""

    pid: int
    esi_url: str
    store_url: str  # empty with STORE=aws
    api_url: str = ""  # empty until the stack is ready, or if only the store runs

    @property
    def ui_url(self) -> str:
        """The Prefect UI's address."""
        return self.api_url.removesuffix("/api")


class StackError(Exception):
    """The stack cannot do what it is asked to; the message says why."""


class BusyError(StackError):
    """Another stack of this checkout is up."""


@contextmanager
def lock_state() -> Iterator[None]:
    """Lock the folder `.local` for this process.

    Raises:
        BusyError: another process holds the lock.
    """
    for folder in (STATE, STATE / "tmp"):
        folder.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = read_addresses()
            where = f" (process {running.pid}, {running.ui_url})" if running else ""
            raise BusyError(
                f"the stack of this checkout is already up{where}: stop it with Ctrl-C first, or use it as it is"
            ) from None
        try:
            yield
        finally:
            ADDRESSES.unlink(missing_ok=True)


def check_disk(folder: Path) -> None:
    """Check that a folder's disk has room: a database that cannot grow fails late, with a long traceback.

    Raises:
        StackError: it has not.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FREE_BYTES:
        raise StackError(
            f"the disk of {folder} has {free_bytes / 2**20:.0f} MiB left, the stack needs {FREE_BYTES / 2**20:.0f} "
            "MiB: make room, or `make clean` to remove what the stack has written there"
        )


def read_addresses() -> Addresses | None:
    """Return the addresses of the running stack; None if none is running, even if a killed one left its file."""
    try:
        addresses = msgspec.json.decode(ADDRESSES.read_bytes(), type=Addresses)
        os.kill(addresses.pid, 0)  # sends nothing: raises if there is no such process
    except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError):
        return None
    return addresses


def make_environment(options: Options, addresses: Addresses) -> dict[str, str]:
    """Return the environment of a stack's worker, of Prefect's commands and of a shell."""
    services = aws_environment(options, addresses.store_url, os.environ) | {"ESI_URL": addresses.esi_url}
    return base_environment(os.environ) | prefect_environment(addresses.api_url) | services


class Stack:
    """The market, the store, Prefect's server and a worker. Use it as a context manager, from the main thread."""

    def __init__(self, options: Options, progress: Progress) -> None:
        self.options = options
        self.progress = progress
        self.children: dict[str, Child] = {}
        self._base = base_environment(os.environ)
        self._held = ExitStack()
        self._store_port, api_port = free_port(), free_port(UI_PORT)
        self._api_url = f"http://127.0.0.1:{api_port}/api"
        store_url = f"http://127.0.0.1:{self._store_port}" if options.store == "local" else ""
        self.addresses = Addresses(os.getpid(), options.esi_url, store_url)

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, raise_interrupt)
        self._held.enter_context(lock_state())
        check_disk(STATE)
        adopt_orphans()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave a child running
        # Flow runs end while the servers they use are still up; then everything else, at the same time.
        for part in (RUNNING_FLOWS, self.children):
            stop_all([self.children[name] for name in part if name in self.children])
            stop_orphans({child.process.pid for child in self.children.values() if child.is_running()})
        self._held.close()

    @property
    def environ(self) -> dict[str, str]:
        """The environment of Prefect's server and worker, of its commands and of flow runs."""
        return make_environment(self.options, msgspec.structs.replace(self.addresses, api_url=self._api_url))

    def start(self) -> None:
        """Start everything, deploy, and wait until a worker is ready for runs."""
        self.progress.begin("starting market, store and Prefect server")
        if not self.options.esi_url:
            command = [sys.executable, "-m", "deployments.local.market", "--prepare", str(self.options.region_id)]
            self._start("market", command, self._base)
        self.start_server()
        replace_prefect_settings(self._api_url)
        from deployments import automations  # noqa: PLC0415 (imports Prefect: a second, while the server starts)
        from deployments.local import prepare  # noqa: PLC0415 (imports Prefect)

        self.client = self._held.enter_context(prepare.open_client(self._api_url))
        self.start_store()
        if not self.options.esi_url:
            url = self._wait("market", lambda: rest_of_line(self.children["market"].log, "market stand-in on "))
            self.addresses = msgspec.structs.replace(self.addresses, esi_url=url)
        self.wait_for_server()
        self.progress.begin("deploying, and starting a worker")
        prepare.prepare_server(self.client)
        self._start("worker", [prefect(), "worker", "start", "--pool", POOL, "--type", "process"], self.environ)
        self._start("deploy", [prefect(), "--no-prompt", "deploy", "--all"], self.environ, is_task=True)
        automations.apply_automations(self.client, automations.read_automations())
        self._wait("worker", lambda: prepare.has_worker(self.client))
        self._wait("deploy", self.children["deploy"].has_succeeded)
        self.addresses = msgspec.structs.replace(self.addresses, api_url=self._api_url)
        self._publish()

    def start_server(self) -> None:
        """Start Prefect's server."""
        self._start("server", server_command(httpx.URL(self._api_url).port or 0), self.environ)

    def wait_for_server(self) -> Addresses:
        """Wait until Prefect's server answers, and return the addresses with its own."""
        self._wait("server", lambda: answers(f"{self._api_url}/health"))
        return msgspec.structs.replace(self.addresses, api_url=self._api_url)

    def start_store(self) -> None:
        """Start the DynamoDB-compatible server and wait until it answers; do nothing with `STORE=aws`."""
        if self.addresses.store_url:
            environ = self._base | store_environment(self._store_port, self.options.store_folder)
            self._start("store", [str(STORE_VENV / "bin" / "ministack")], environ)
            self._wait("store", lambda: answers(f"{self.addresses.store_url}/_ministack/health"))
        self._publish()

    def check(self) -> None:
        """Check that all children are running.

        Raises:
            ChildError: one has ended; with the last lines of its log.
        """
        for child in self.children.values():
            child.check()

    def _publish(self) -> None:
        ADDRESSES.write_bytes(msgspec.json.encode(self.addresses))

    def _start(self, name: str, command: list[str], environ: dict[str, str], *, is_task: bool = False) -> None:
        self.children[name] = Child(name, command, environ, STATE / "logs" / f"{name}.log", is_task=is_task)

    def _wait(self, name: str, ready: Callable[[], T]) -> T:
        deadline = time.monotonic() + START_SECONDS
        while not (result := ready()):
            self.check()
            if time.monotonic() > deadline:
                raise ChildError(f"{name} was not ready after {START_SECONDS:.0f} s: see {self.children[name].log}")
            time.sleep(0.05)
        return result


def replace_prefect_settings(api_url: str) -> None:
    """Set Prefect's settings of this process to the stack's in place of the user's; call it before importing Prefect.

    In a terminal, Prefect would also print a notice about usage data, and send some, as soon as it is imported.
    """
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ.update(prefect_environment(api_url) | {"DO_NOT_TRACK": "1"})


def raise_interrupt(*_: object) -> None:
    """End the program as Ctrl-C does."""
    raise KeyboardInterrupt


def prefect() -> str:
    """Return the path of Prefect's command."""
    return str(VENV / "bin" / "prefect")


def server_command(port: int) -> list[str]:
    """Return the command that starts a Prefect server, reachable only from this machine."""
    return [prefect(), "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def answers(url: str) -> bool:
    """Return whether a GET succeeds."""
    try:
        return httpx.get(url, timeout=1.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def rest_of_line(log: Path, start: str) -> str:
    """Return the rest of a log's first line that begins with `start`; empty if there is none yet."""
    lines = log.read_text(errors="replace").splitlines()
    return next((line.removeprefix(start) for line in lines if line.startswith(start)), "")
