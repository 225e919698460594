"""The DynamoDB-compatible store and the Prefect server that tests share."""

import os
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import certifi

from deployments.local.environment import aws_environment, base_environment, prefect_environment, store_environment
from deployments.local.processes import free_port
from deployments.local.servers import STORE_COMMAND, Servers, answers, server_command
from tests.support.api import Api

START_SECONDS = 120.0
# The shared server does without what no test of it asks for, and what is a third of its work.
NO_SERVICES = {
    f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
    for service in ("EVENT_PERSISTER", "TRIGGERS", "SCHEDULER", "LATE_RUNS")
}
# A server of a test's own has them, and looks every two seconds.
QUICK_SERVICES = {
    f"PREFECT_SERVER_SERVICES_{service}_SECONDS": "2"
    for service in ("SCHEDULER_LOOP", "LATE_RUNS_AFTER", "DB_VACUUM_LOOP")
}


def start_servers() -> ExitStack:
    """Start both without waiting, and set the environment for this process and its children.

    Returns:
        What stops them when it is closed.
    """
    held = ExitStack()
    for start in prepare_servers(held).values():
        start()
    return held


def prepare_servers(held: ExitStack) -> dict[str, Callable[[], object]]:
    """Set the environment for this process and its children, as if both servers were there.

    Args:
        held: stops those that were started, and removes their files, when it is closed.

    Returns:
        What starts `store` and `server` without waiting.
    """
    home = Path(tempfile.mkdtemp(prefix="market-data-tests-"))
    held.callback(shutil.rmtree, home, ignore_errors=True)
    store_port, api_port = free_port(), free_port()
    base = base_environment(os.environ) | {"TMPDIR": str(home)}
    prefect_settings = prefect_server_environment(api_port, home / "prefect")
    aws = aws_environment(f"http://127.0.0.1:{store_port}", {})
    for name in [name for name in os.environ if name.startswith(("AWS_", "PREFECT_", "ESI_"))]:
        del os.environ[name]
    os.environ.update(prefect_settings | aws | {"NO_PROXY": base["NO_PROXY"], "PREFECT_LOGGING_LEVEL": "WARNING"})
    os.environ["PREFECT_API_SSL_CERT_FILE"] = str(write_certificate(home))
    if context := sys.modules.get("prefect.context"):  # otherwise Prefect finds them when it is imported
        context.refresh_global_settings_context()
    servers = Servers(home, base)
    held.callback(servers.stop)
    return {
        "store": partial(servers.start, "store", STORE_COMMAND, store_environment(store_port, home / "store")),
        "server": partial(
            servers.start, "server", start_command(api_port, home / "prefect"), prefect_settings | NO_SERVICES
        ),
    }


def write_certificate(home: Path) -> Path:
    """Write one certificate: each client of Prefect's would read all of the world's, though the API is plain HTTP."""
    certificate = re.search(r"-----BEGIN.*?-----END CERTIFICATE-----\n", Path(certifi.where()).read_text(), re.DOTALL)
    assert certificate
    file = home / "certificate.pem"
    file.write_text(certificate[0])
    return file


def start_command(port: int, home: Path) -> list[str]:
    """Return the command that starts a Prefect server which keeps its database in `home`."""
    return [
        sys.executable,
        str(Path(__file__).with_name("start_migrated.py")),
        str(home / "prefect.db"),
        *server_command(port),
    ]


def prefect_server_environment(port: int, home: Path) -> dict[str, str]:
    """Return the settings of a Prefect server that keeps its database in `home`, and of those who use it."""
    settings = prefect_environment(f"http://127.0.0.1:{port}/api", home)
    del settings["PREFECT_RESULTS_PERSIST_BY_DEFAULT"]  # as where nobody has set it
    # A sixth of a server's start; a block's own `save` registers its type.
    return settings | {"PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false"}


class PrefectServer:
    """A Prefect server that can be killed, and started again with the same database."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.settings = prefect_server_environment(self.port, home)
        self.api = Api(self.settings["PREFECT_API_URL"])
        self._servers = Servers(home, os.environ)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._child = self._servers.start("server", start_command(self.port, self.home), self.settings | QUICK_SERVICES)
        self._servers.wait_for("server", self.api.is_up)

    def kill(self) -> None:
        """Kill it outright."""
        self._child.kill_tree()

    def stop(self) -> None:
        """Stop it."""
        self._servers.stop()
        self.api.close()


def wait_for_store() -> str:
    """Wait until the store answers, and return its address."""
    url = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    wait_for(lambda: answers(f"{url}/_ministack/health"), "the store")
    return url


def wait_for(ready: Callable[[], bool], what: str) -> None:
    """Wait until something is ready."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)


def is_in_database(text: str) -> bool:
    """Return whether a text is in any row of the shared Prefect server's database."""
    file = f"file:{os.environ['PREFECT_HOME']}/prefect.db?mode=ro"
    with closing(sqlite3.connect(file, uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [name for _id, name, *_ in database.execute(f'PRAGMA table_info("{table}")')]
            where = " OR ".join(f'instr("{name}", :text)' for name in columns)
            if database.execute(f'SELECT 1 FROM "{table}" WHERE {where} LIMIT 1', {"text": text}).fetchone():
                return True
    return False


def finish_reports() -> None:
    """Wait until what the runs of this process report has been sent; what comes later goes to the server of then."""
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 (imports Prefect)

    for thread in threading.enumerate():
        if thread.name.startswith("reporter"):
            thread.join()
    EventsWorker.drain_all(at_exit=False)  # all of Prefect's queues, that of log lines too
