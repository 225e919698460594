"""Start and stop the embedded stack: market stand-in, DynamoDB-compatible store, Prefect server and worker."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import msgspec

from deployments.local.environment import (
    STATE,
    Options,
    aws_environment,
    base_environment,
    prefect_environment,
)
from deployments.local.processes import Child, free_port
from deployments.local.progress import Progress
from deployments.local.servers import (
    Servers,
    Store,
    answers,
    deploy_command,
    market_command,
    market_url,
    server_command,
    worker_command,
)

FREE_BYTES = 200 * 2**20  # one region's database and logs of a day
UI_PORT = 4200  # Prefect's default, if it is free
ADDRESSES = STATE / "stack.json"


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
        self._servers = Servers(STATE / "logs", base_environment(os.environ))
        self._held = ExitStack()
        self._store = Store(free_port(), options.store_folder, is_kept=True)
        self._api_port = free_port(UI_PORT)
        self._api_url = f"http://127.0.0.1:{self._api_port}/api"
        store_url = self._store.url if options.store == "local" else ""
        self.addresses = Addresses(os.getpid(), options.esi_url, store_url)

    def __enter__(self) -> Self:
        self._held.enter_context(lock_state())
        check_disk(STATE)
        self._held.enter_context(self._servers)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @property
    def children(self) -> dict[str, Child]:
        """What runs, by name."""
        return self._servers.children

    @property
    def environ(self) -> dict[str, str]:
        """The environment of Prefect's server and worker, of its commands and of flow runs."""
        return make_environment(self.options, msgspec.structs.replace(self.addresses, api_url=self._api_url))

    def start(self) -> None:
        """Start everything, deploy, and wait until a worker is ready for runs."""
        self.progress.begin("starting market, store and Prefect server")
        if not self.options.esi_url:
            market = self._servers.start("market", market_command([self.options.region_id]))
        self.start_server()
        replace_prefect_settings(self._api_url)
        from deployments import automations  # noqa: PLC0415 (imports Prefect: a second, while the server starts)
        from deployments.local import prepare  # noqa: PLC0415 (imports Prefect)

        self.client = self._held.enter_context(prepare.open_client(self._api_url))
        self.start_store()
        if not self.options.esi_url:
            url = self._servers.wait_for("market", lambda: market_url(market))
            self.addresses = msgspec.structs.replace(self.addresses, esi_url=url)
        self.wait_for_server()
        self.progress.begin("deploying, and starting a worker")
        prepare.prepare_server(self.client)
        self._servers.start("worker", worker_command(), self.environ)
        deploy = self._servers.start("deploy", deploy_command("--all"), self.environ, is_task=True)
        automations.apply_automations(self.client, automations.read_automations())
        self._servers.wait_for("worker", lambda: prepare.has_worker(self.client))
        self._servers.wait_for("deploy", deploy.has_succeeded)
        self.addresses = msgspec.structs.replace(self.addresses, api_url=self._api_url)
        self._publish()

    def start_server(self) -> None:
        """Start Prefect's server."""
        self._servers.start("server", server_command(self._api_port), self.environ)

    def wait_for_server(self) -> Addresses:
        """Wait until Prefect's server answers, and return the addresses with its own."""
        self._servers.wait_for("server", lambda: answers(f"{self._api_url}/health"))
        return msgspec.structs.replace(self.addresses, api_url=self._api_url)

    def start_store(self) -> None:
        """Start the DynamoDB-compatible server and wait until it answers; do nothing with `STORE=aws`."""
        if self.addresses.store_url:
            self._servers.start("store", self._store.command(), self._store.environ())
            self._servers.wait_for("store", self._store.is_up)
        self._publish()

    def check(self) -> None:
        """Check that all children are running.

        Raises:
            ChildError: one has ended; with the last lines of its log.
        """
        self._servers.check()

    def _publish(self) -> None:
        ADDRESSES.write_bytes(msgspec.json.encode(self.addresses))


def replace_prefect_settings(api_url: str) -> None:
    """Set Prefect's settings of this process to the stack's in place of the user's; call it before importing Prefect.

    In a terminal, Prefect would also print a notice about usage data, and send some, as soon as it is imported.
    """
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ.update(prefect_environment(api_url) | {"DO_NOT_TRACK": "1"})
