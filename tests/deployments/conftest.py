"""Fixtures for the tests that start whole stacks."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.local.environment import CHECKOUT, POOL
from deployments.local.processes import Child, stop_all
from deployments.local.servers import prefect, worker_command
from tests.support.api import Api
from tests.support.servers import PrefectServer

UNTAGGED = """
  - name: untagged
    entrypoint: flows/market_data.py:market_data
    work_pool: {name: market-data}
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a copy of the checkout as a newcomer has it, with the environments that `make setup` creates."""
    copy = tmp_path_factory.mktemp("clone") / "market-data"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, copy / name)
    for name in (".venv", ".venv-store"):
        (copy / name).symlink_to(CHECKOUT / name)
    yield copy
    shutil.rmtree(copy / ".local", ignore_errors=True)


@pytest.fixture(scope="module")
def deployed(own_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Create a work pool with two deployments: one of prefect.yaml, and one without tags, made by hand."""
    own_server.api.create_pool(POOL)
    file = tmp_path_factory.mktemp("deployed") / "prefect.yaml"
    file.write_text(Path(CHECKOUT, "prefect.yaml").read_text() + UNTAGGED)
    names = ("--name", "venal", "--name", "untagged")
    command = prefect("--no-prompt", "deploy", "--prefect-file", str(file), *names)
    subprocess.run(command, cwd=CHECKOUT, env=os.environ | own_server.settings, check=True, capture_output=True)


@pytest.fixture
def start_worker(deployed: None, own_api: Api, served: str, tmp_path: Path) -> Iterator[Callable[[], Child]]:
    """Start a worker whose runs see the market and keep their pages; it is stopped after the test."""
    kept = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true", "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "kept")}
    environ = os.environ | kept | {"ESI_URL": served, "PREFECT_LOGGING_LEVEL": "INFO"}
    workers: list[Child] = []

    def start() -> Child:
        workers.append(Child("worker", worker_command(), environ, tmp_path / "worker.log"))
        return workers[-1]

    yield start
    stop_all(workers)


@pytest.fixture
def worker(start_worker: Callable[[], Child]) -> Child:
    """Return a worker."""
    return start_worker()
