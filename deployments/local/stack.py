"""The embedded stack: market stand-in, DynamoDB-compatible store, Prefect server, work pool, deployments, worker."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from deployments.local.api import Api
from deployments.local.environment import (
    CHECKOUT,
    POOL,
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
    deploy_command,
    market_command,
    market_url,
    server_command,
    worker_command,
)

FREE_BYTES = 200 * 2**20  # a day's database and logs of one region
UI_PORT = 4200  # Prefect's own default, if nobody has it
AUTOMATIONS = CHECKOUT / "deployments" / "automations.yaml"
ADDRESSES = STATE / "stack.json"


class Addresses(msgspec.Struct, frozen=True):
    """Where the running stack's parts are."""

    pid: int
    esi_url: str
    store_url: str  # empty with STORE=aws
    api_url: str = ""  # empty while only the store runs

    @property
    def ui_url(self) -> str:
        """The Prefect UI's address."""
        return self.api_url.removesuffix("/api")


class BusyError(Exception):
    """Another stack of this checkout is running."""


class FullDiskError(Exception):
    """There is no room for databases and logs."""


@contextmanager
def lock_state() -> Iterator[None]:
    """Take the folder `.local` for this process.

    Raises:
        BusyError: another process has it.
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
    """Raise if a folder's disk is about full: a database that cannot grow fails late, and in many words.

    Raises:
        FullDiskError: it is.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FREE_BYTES:
        raise FullDiskError(
            f"the disk of {folder} has {free_bytes / 2**20:.0f} MiB left, the stack needs {FREE_BYTES / 2**20:.0f} "
            "MiB: make room, or `make clean` if it is what the stack has left there"
        )


def read_addresses() -> Addresses | None:
    """Return where the running stack is, None if there is none; one that was killed has left its file."""
    try:
        addresses = msgspec.json.decode(ADDRESSES.read_bytes(), type=Addresses)
        os.kill(addresses.pid, 0)  # no signal: only whether there is such a process
    except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError):
        return None
    return addresses


def make_environment(options: Options, addresses: Addresses) -> dict[str, str]:
    """Return the environment of what uses a stack: its worker, Prefect's commands, a shell."""
    return (
        base_environment(os.environ)
        | prefect_environment(addresses.api_url)
        | aws_environment(options, addresses.store_url, os.environ)
        | {"ESI_URL": addresses.esi_url}
    )


class Stack:
    """Starts what is asked for, in order, and stops all of it. Use it as a context manager, from the main thread."""

    def __init__(self, options: Options, progress: Progress) -> None:
        self.options = options
        self.progress = progress
        self._servers = Servers(STATE / "logs", base_environment(os.environ))
        self._held = ExitStack()
        self._store = Store(free_port(), options.store_folder, is_kept=True)
        self._api_port = free_port(UI_PORT)
        self.api = Api(f"http://127.0.0.1:{self._api_port}/api")
        store_url = self._store.url if options.store == "local" else ""
        self.addresses = Addresses(os.getpid(), options.esi_url, store_url)

    def __enter__(self) -> Self:
        self._held.enter_context(lock_state())
        check_disk(STATE)
        self._held.enter_context(self.api)
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
        return make_environment(self.options, msgspec.structs.replace(self.addresses, api_url=self.api.url))

    def start(self) -> None:
        """Start everything, deploy, and wait until a worker is ready for runs."""
        self.progress.begin("starting market, store and Prefect server")
        if not self.options.esi_url:
            market = self._servers.start("market", market_command([self.options.region_id]))
        self.start_server()
        self.start_store()
        if not self.options.esi_url:
            url = self._servers.wait_for("market", lambda: market_url(market))
            self.addresses = msgspec.structs.replace(self.addresses, esi_url=url)
        self.wait_for_server()
        self.progress.begin("deploying, and starting a worker")
        self.api.create_pool(POOL)
        self.api.apply_automations(read_automations())
        self.api.end_leftovers()
        self.api.forget_workers(POOL)
        self._servers.start("worker", worker_command(), self.environ)
        deploy = self._servers.start("deploy", deploy_command("--all"), self.environ, is_task=True)
        self._servers.wait_for("worker", lambda: self.api.has_worker(POOL))
        self._servers.wait_for("deploy", deploy.has_succeeded)
        self.addresses = msgspec.structs.replace(self.addresses, api_url=self.api.url)
        self._publish()

    def start_server(self) -> None:
        """Start Prefect's server."""
        self._servers.start("server", server_command(self._api_port), self.environ)

    def wait_for_server(self) -> Addresses:
        """Wait until Prefect's server answers, and return where it is, too."""
        self._servers.wait_for("server", self.api.is_up)
        return msgspec.structs.replace(self.addresses, api_url=self.api.url)

    def start_store(self) -> None:
        """Start the DynamoDB-compatible server and wait for it; nothing with `STORE=aws`."""
        if self.addresses.store_url:
            self._servers.start("store", self._store.command(), self._store.environ())
            self._servers.wait_for("store", self._store.is_up)
        self._publish()

    def check(self) -> None:
        """Raise if a part has ended.

        Raises:
            ChildError: with the last lines of its log.
        """
        self._servers.check()

    def _publish(self) -> None:
        ADDRESSES.write_bytes(msgspec.json.encode(self.addresses))


def read_automations() -> list[dict[str, Any]]:
    """Return the automations that ship with the deployments, as Prefect's API takes them."""
    return msgspec.yaml.decode(AUTOMATIONS.read_bytes(), type=dict[str, list[dict[str, Any]]])["automations"]
