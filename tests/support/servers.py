"""The DynamoDB-compatible store and the Prefect server that tests share."""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from deployments.local.environment import (
    STORE_VENV,
    Options,
    aws_environment,
    base_environment,
    prefect_environment,
    store_environment,
)
from deployments.local.processes import Child, free_port
from deployments.local.stack import answers, server_command
from tests.support.api import Api

START_SECONDS = 120.0
# The shared server does without what no test of it asks for, and what is a third of its work.
NO_EVENTS = {
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}


def start_servers() -> ExitStack:
    """Start both without waiting, and set the environment for this process and its children.

    Returns:
        What stops them when it is closed.
    """
    servers = ExitStack()
    for start in prepare_servers(servers).values():
        start()
    return servers


def prepare_servers(servers: ExitStack) -> dict[str, Callable[[], None]]:
    """Set the environment for this process and its children, as if both servers were there.

    Args:
        servers: stops those that were started, and removes their files, when it is closed.

    Returns:
        What starts `store` and `server` without waiting.
    """
    home = Path(tempfile.mkdtemp(prefix="market-data-tests-"))
    servers.callback(shutil.rmtree, home, ignore_errors=True)
    store_port, api_port = free_port(), free_port()
    base = base_environment(os.environ) | {"TMPDIR": str(home)}
    prefect_settings = prefect_server_environment(api_port, home / "prefect")
    aws = aws_environment(Options(0, "local", ""), f"http://127.0.0.1:{store_port}", {})
    for name in [name for name in os.environ if name.startswith(("AWS_", "PREFECT_", "ESI_"))]:
        del os.environ[name]
    os.environ.update(prefect_settings | aws | {"NO_PROXY": base["NO_PROXY"], "PREFECT_LOGGING_LEVEL": "WARNING"})
    if context := sys.modules.get("prefect.context"):  # otherwise Prefect finds them when it is imported
        context.refresh_global_settings_context()
    store = store_environment(store_port, home / "store") | {"PERSIST_STATE": "0"}

    def start(name: str, command: list[str], environ: dict[str, str]) -> None:
        servers.callback(Child(name, command, environ, home / f"{name}.log").stop)

    return {
        "store": partial(start, "store", [str(STORE_VENV / "bin" / "ministack")], base | store),
        "server": partial(start, "server", server_command(api_port), base | prefect_settings | NO_EVENTS),
    }


def prefect_server_environment(port: int, home: Path) -> dict[str, str]:
    """Return the settings of a Prefect server that keeps its database in `home`, and of those who use it."""
    settings = prefect_environment(f"http://127.0.0.1:{port}/api", home)
    settings["PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS"] = "2"
    settings["PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS"] = "2"
    settings["PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS"] = "2"
    del settings["PREFECT_RESULTS_PERSIST_BY_DEFAULT"]  # as where nobody has set it
    return settings


class PrefectServer:
    """A Prefect server that can be killed, and started again with the same database."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.settings = prefect_server_environment(self.port, home)
        self.api = Api(self.settings["PREFECT_API_URL"])
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environ = os.environ | self.settings
        self._child = Child("server", server_command(self.port), environ, self.home / "server.log")
        wait_for(self.api.is_up, "the Prefect server")

    def kill(self) -> None:
        """Kill it outright."""
        self._child.process.kill()
        self._child.process.wait()

    def stop(self) -> None:
        """Stop it."""
        self._child.stop()
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


def finish_reports() -> None:
    """Wait until what the runs of this process report has been sent."""
    for thread in threading.enumerate():
        if thread.name.startswith("reporter"):
            thread.join()
