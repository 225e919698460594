"""The embedded stack's commands, which `make run`, `make up` and `make table` call."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from deployments.local.api import Api
from deployments.local.environment import (
    CHECKOUT,
    STATE,
    Options,
    aws_environment,
    prefect_environment,
    read_options,
)
from deployments.local.processes import ChildError
from deployments.local.progress import Progress, fail
from deployments.local.run import FlowRunError, run_deployment
from deployments.local.show import show_table
from deployments.local.stack import Addresses, BusyError, FullDiskError, Stack, read_addresses
from deployments.local.status import show_status
from tasks.table import TableError

INTERRUPTED = 130
NEXT = """
  More of the table              {given}make table
  One item type                  {given}TYPE="Tritanium" make table
  Keep it fresh, with the UI     {given}make up
  The Forge, 433 pages           REGION=10000002 make run
  Real orders, not made-up ones  ESI_URL=https://esi.evetech.net make run
"""
UP = """
  The UI                         {ui}
  export PREFECT_API_URL={api}   in another shell, for Prefect's commands (.venv/bin/prefect):
  prefect deployment run {deployment} --watch
  prefect deployment ls
  prefect flow-run ls
  {given}make table
"""


def main() -> int:
    """Does what the command line says; gives the exit code."""
    commands: dict[str, Callable[[Options], int | None]] = {
        "run": run,
        "up": up,
        "table": table,
        "status": status,
        "report": report,
    }
    parser = argparse.ArgumentParser(
        "python -m deployments.local",
        description="The embedded stack. REGION, STORE, ESI_URL, TYPE and RUNS in the environment say what.",
    )
    parser.add_argument(
        "command",
        choices=commands,
        help="fill once, stay up, show the table, how it stands, write a report",
    )
    command = commands[parser.parse_args().command]
    try:
        return command(read_options(os.environ)) or 0
    except (BusyError, ChildError, FlowRunError, FullDiskError, TableError, ValueError) as error:
        fail(str(error))
        return 1
    except KeyboardInterrupt:
        fail("stopped; nothing is left running")
        return INTERRUPTED


def run(options: Options) -> None:
    """Fills the region's table once, and shows its first rows."""
    with Progress() as progress:
        with Stack(options, progress) as stack:
            stack.start()
            progress.begin(f"running {options.deployment}")
            run_deployment(stack)
            progress.begin("showing the table")
            show(options, stack.addresses.store_url, rows=10)
            progress.begin("stopping")
        progress.end()
        progress.say("done: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in progress.parts.items()))
    print(NEXT.format(given=options.given))  # noqa: T201 (what a user types next)


def up(options: Options) -> None:
    """Keeps the stack up until Ctrl-C, with the region's schedule on."""
    with Progress() as progress, Stack(options, progress) as stack:
        stack.start()
        stack.api.start_schedule(options.deployment, {"region_id": options.region_id})
        progress.end()
        told = {"ui": stack.addresses.ui_url, "api": stack.api.url, "deployment": options.deployment}
        print(UP.format(**told, given=options.given), flush=True)  # noqa: T201
        while True:
            stack.check()
            time.sleep(0.5)


def table(options: Options) -> None:
    """Shows the table."""
    with find_store(options) as addresses:
        show(options, addresses.store_url, os.environ.get("TYPE", "").strip())


def status(options: Options) -> int:
    """Shows how tables stand; gives 1 if one of them is stale."""
    with find_store(options) as addresses:
        set_up_aws(options, addresses.store_url)
        api_url = addresses.api_url or os.environ.get("PREFECT_API_URL", "")
        with Api(api_url) if api_url else nullcontext() as api:
            return 0 if show_status({options.table_name: options.region_id}, api) else 1


def report(options: Options) -> int:
    """Writes a report of the region's table and its last runs; gives the exit code."""
    runs, file = os.environ.get("RUNS", "").strip(), STATE / f"report-{options.region_id}.html"
    with find_store(options, with_server=True) as addresses:
        set_up_aws(options, addresses.store_url)
        own = prefect_environment(addresses.api_url) if addresses.api_url else {}
        given = ["--table-name", options.table_name, "--file", str(file.relative_to(CHECKOUT))]
        command = [sys.executable, "-m", "deployments.report", *given, *(["--runs", runs] if runs else [])]
        command += [] if options.esi_url else ["--made-up"]
        return subprocess.run(command, cwd=CHECKOUT, env=os.environ | own, check=False).returncode  # noqa: S603 (ours)


@contextmanager
def find_store(options: Options, *, with_server: bool = False) -> Iterator[Addresses]:
    """Gives where the running stack is, or where a store, and a Prefect server, are that run until the block ends."""
    running = read_addresses()
    if options.store == "aws" or (running and running.store_url):
        yield running or Addresses(os.getpid(), options.esi_url, "")
        return
    with Progress() as progress, Stack(options, progress) as stack:
        progress.begin("starting the store and a Prefect server" if with_server else "starting the store")
        if with_server:
            stack.start_server()
        stack.start_store()
        addresses = stack.wait_for_server() if with_server else stack.addresses
        progress.end()
        yield addresses


def show(options: Options, store_url: str, type_wanted: str = "", rows: int = 20) -> None:
    """Shows the table with boto3 set up as the worker's is."""
    set_up_aws(options, store_url)
    show_table(options.table_name, type_wanted, rows)


def set_up_aws(options: Options, store_url: str) -> None:
    """Sets boto3 up as the worker's is."""
    wanted = aws_environment(options, store_url, os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(wanted)
