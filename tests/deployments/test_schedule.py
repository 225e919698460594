"""The commands of the README's section "Schedule it", run as they are, on a separate server."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.automations import read_automations
from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from deployments.local.processes import free_port
from tests.support.commands import Commands
from tests.support.pages import find_commands, run_module
from tests.support.servers import wait_for
from tests.support.tables import records, scan
from tests.support.truth import truth

SECTION = Path(CHECKOUT, "README.md").read_text().split("## Schedule it\n")[1].split("\n## ")[0]
SERVER, WORKER, THIRD_TERMINAL = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
DOMAIN = 10000043  # 190 pages
ASKING = (
    "prefect work-pool",
    "prefect flow-run ls",
    "prefect flow-run inspect",
    "prefect flow-run logs",
    "prefect gcl",
)
LATENCY_SECONDS = 9.5  # 20 pages at once: 105 s for Domain

pytestmark = [pytest.mark.outage, pytest.mark.usefixtures("store_url")]


@pytest.fixture
def environ(served: str, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user's shell: of Prefect's settings, only the server's port and folder."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = {"HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    return bare | home | {"PREFECT_SERVER_API_PORT": str(free_port()), "ESI_URL": served}


def type_in(shell: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run lines in a shell in the checkout; the first that fails ends it."""
    done = subprocess.run(
        ["bash", "-ec", shell.replace("4200", environ["PREFECT_SERVER_API_PORT"])],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def terminal(shell: str, environ: dict[str, str], log: Path) -> Iterator[None]:
    """Run lines in a shell in the checkout; the last one runs until Ctrl-C."""
    *before, last = shell.replace("4200", environ["PREFECT_SERVER_API_PORT"]).splitlines()
    lines = "\n".join([*before, f"exec {last}"])
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-ec", lines],
            cwd=CHECKOUT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does, whichever line is running
        process.wait()


@pytest.fixture
def started(environ: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Start server, deployments, automations and worker as in the first two terminals; yield the API's address."""
    with terminal(SERVER, environ, tmp_path / "server.log"), terminal(WORKER, environ, tmp_path / "worker.log"):
        wait_for(lambda: "Worker" in (tmp_path / "worker.log").read_text(), "the worker")
        yield f"http://127.0.0.1:{environ['PREFECT_SERVER_API_PORT']}/api"


def test_section_works_as_written(
    started: str,
    environ: dict[str, str],
    market: Market,
    dynamodb: DynamoDBClient,
    commands: Commands,
    tmp_path: Path,
) -> None:
    """A run of over 100 s completes and is never marked as Crashed; an activated schedule creates runs.

    All automations were created, and the commands of the page on operations that ask the server find what there is.
    """
    assert (tmp_path / "worker.log").read_text().count(": created, ") == len(read_automations())
    market.latency_seconds = LATENCY_SECONDS
    activate, run, list_schedules, resume = THIRD_TERMINAL.splitlines()
    started_at = time.monotonic()
    type_in(f"{activate}\n{run}", environ)
    assert time.monotonic() - started_at > 100
    (flow_run,) = ask(started, "/flow_runs/filter")
    states = ask(started, f"/flow_run_states/?flow_run_id={flow_run['id']}", "GET")
    assert "Crashed" not in {state["name"] for state in states}
    assert states[-1]["name"] == "Completed"
    assert records(scan(dynamodb, f"MarketData-{DOMAIN}")) == truth(market, DOMAIN)
    market.latency_seconds = 0.0
    shown = type_in(f"{activate}\n{list_schedules}", environ).stdout
    assert "interval: 0:05:00" in shown
    (schedule_id,) = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", shown)
    type_in(f"{activate}\n{resume.replace('SCHEDULE_ID', schedule_id)}", environ)
    wait_for(lambda: "Scheduled" in {run["state_name"] for run in ask(started, "/flow_runs/filter")}, "a scheduled run")
    asking = [command for command in find_commands("docs/operating.md") if command.startswith(ASKING)]
    assert len(asking) == 7
    printed = [
        run_module(commands, command.replace("ID", flow_run["id"]), PREFECT_API_URL=started) for command in asking
    ]
    assert all(shown in "".join(printed) for shown in ("market-data", flow_run["id"], "esi-market-order"))


def ask(url: str, path: str, method: str = "POST") -> list[dict[str, str]]:
    """Request a list from Prefect's API."""
    answer = httpx.request(method, url + path, json={} if method == "POST" else None, trust_env=False)
    found: list[dict[str, str]] = answer.raise_for_status().json()
    return found
