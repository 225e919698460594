"""Start and stop the embedded stack: market stand-in, DynamoDB-compatible store, Prefect server and worker."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from deployments.local import environment, servers
from deployments.local.environment import STATE, Options
from deployments.local.processes import StackError, claim_port, free_port
from deployments.local.servers import Servers

FREE_BYTES = 200 * 2**20  # one region's database and logs of a day
UI_PORT = 4200  # Prefect's default, if it is free
ADDRESSES = STATE / "stack.json"


class Addresses(msgspec.Struct):
    """The addresses of the running stack."""

    pid: int
    esi_url: str
    store_url: str  # empty with STORE=aws
    api_url: str = ""  # empty until the stack is ready, or if only the store runs

    @property
    def ui_url(self) -> str:
        """The Prefect UI's address."""
        return self.api_url.removesuffix("/api")


@contextmanager
def lock_state() -> Iterator[None]:
    """Lock the folder `.local` for this process; raise StackError if another one holds the lock."""
    (STATE / "tmp").mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = read_addresses()
            where = f" (process {running.pid}, {running.ui_url})" if running else ""
            raise StackError(
                f"the stack of this checkout is already up{where}: stop it with Ctrl-C first, or use it as it is"
            ) from None
        try:
            yield
        finally:
            ADDRESSES.unlink(missing_ok=True)


def check_disk(folder: Path) -> None:
    """Raise StackError unless a folder's disk has room: a database that cannot grow fails late, with a traceback."""
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


def make_environment(addresses: Addresses) -> dict[str, str]:
    """Return the environment of a stack's worker, of Prefect's commands and of a shell."""
    services = environment.aws_environment(addresses.store_url, os.environ) | {"ESI_URL": addresses.esi_url}
    return environment.base_environment(os.environ) | environment.prefect_environment(addresses.api_url) | services


class Stack(Servers):
    """The market, the store, Prefect's server and a worker. Use it as a context manager, from the main thread."""

    def __init__(self, options: Options) -> None:
        super().__init__(STATE / "logs", environment.base_environment(os.environ))
        self.options = options
        self._store_port = free_port()
        self._api_port = claim_port(UI_PORT, self.held)  # until its server listens, another stack would find it free
        self._api_url = f"http://127.0.0.1:{self._api_port}/api"
        self._prefect = environment.prefect_environment(self._api_url)
        store_url = f"http://127.0.0.1:{self._store_port}" if options.store == "local" else ""
        self.addresses = Addresses(os.getpid(), options.esi_url, store_url)

    def __enter__(self) -> Self:
        self.held.enter_context(lock_state())
        check_disk(STATE)
        return super().__enter__()

    def start_all(self, *deployed: str) -> None:
        """Start everything, deploy all or those named, and wait until a worker is ready for runs."""
        self.progress.begin("starting market, store and Prefect server")
        if not self.options.esi_url:
            self.addresses.esi_url = self.start_market("market", [self.options.region_id])
        self.start_server()
        # In a terminal, Prefect would print a notice about usage data, and send some, as soon as it is imported.
        environment.replace_settings("PREFECT_", self._prefect | {"DO_NOT_TRACK": "1"})
        from deployments import automations  # noqa: PLC0415 (imports Prefect: a second, while the server starts)
        from deployments.local import prepare  # noqa: PLC0415 (imports Prefect)

        self.client = self.held.enter_context(prepare.open_client(self._api_url))
        self.start_store()
        self.wait_for_server()
        self.progress.begin("deploying, and starting a worker")
        prepare.prepare_server(self.client)
        environ = make_environment(self.addresses)
        self.start("worker", servers.worker_command(), environ)
        names = [word for name in deployed for word in ("--name", name)] or ["--all"]
        deploy = self.start("deploy", servers.prefect("--no-prompt", "deploy", *names), environ, is_task=True)
        automations.apply_automations(self.client, automations.read_automations())
        self.wait_for("worker", lambda: prepare.has_worker(self.client))
        self.wait_for("deploy", deploy.has_succeeded)
        self._publish()

    def start_server(self) -> None:
        """Start Prefect's server."""
        self.start("server", servers.server_command(self._api_port), self._prefect, url=f"{self._api_url}/health")

    def wait_for_server(self) -> None:
        """Wait until Prefect's server answers, and whatever else was started."""
        self.wait_until_up()
        self.addresses.api_url = self._api_url

    def start_store(self) -> None:
        """Start the DynamoDB-compatible server and wait until it answers; do nothing with `STORE=aws`."""
        if url := self.addresses.store_url:
            environ = environment.store_environment(self._store_port, self.options.store_folder, is_kept=True)
            self.start("store", servers.STORE_COMMAND, environ)
            self.wait_for("store", lambda: servers.answers(f"{url}/_ministack/health"))
        self._publish()

    def _publish(self) -> None:
        ADDRESSES.write_bytes(msgspec.json.encode(self.addresses))
