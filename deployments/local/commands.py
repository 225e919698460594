"""The embedded stack's commands: `make run`, `make up`, `make table` and so on."""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from deployments.local import environment
from deployments.local.environment import CHECKOUT, STATE, VENV, Options
from deployments.local.processes import StackError
from deployments.local.progress import WIDTH, fail
from deployments.local.show import show_table
from deployments.local.stack import Addresses, Stack, make_environment, read_addresses
from tasks.network import is_this_machine
from tasks.table.errors import TableError

INTERRUPTED = 130
# Settings of the user that would lead boto3 away from the store that the exports name.
MISLEADING = ["AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"]
# Commands to try next, by what they do.
AFTER_RUN = {
    "More of the table": "{given}make table",
    "One item type": "{given}make table TYPE=Tritanium",
    "Keep it fresh, with a UI": "{given}make up",
    "Your own commands": "{given}make shell",
    "The Forge, 433 pages": "REGION=10000002 make run",
    "Jita 4-4 alone": "MARKETS=60003760 make run",
    "Real orders": "ESI_URL=https://esi.evetech.net make run",
}
WHILE_UP = {
    "The UI": "{ui}",
    "Stop it": "Ctrl-C",
    "What the table holds": "{given}make table",
    "Your own commands": "{given}make shell",
}
IN_SHELL = {
    "Fill a table": "python -m flows.market_data --help",
    "Let the worker fill it": "prefect deployment run {deployment} --watch{param}",
    "Leave it": "exit",
}


def main() -> int:
    """Run the command line and return the exit code."""
    commands: dict[str, Callable[[Options], int | None]] = {
        command.__name__: command for command in (run, up, shell, table, status, report)
    }
    parser = argparse.ArgumentParser(
        "python -m deployments.local",
        description="Run the embedded stack. The environment variables REGION, MARKETS, MARKET, STORE, ESI_URL, TYPE, "
        "RUNS and VERBOSE are its options.",
    )
    parser.add_argument(
        "command",
        choices=commands,
        help="fill a table once; stay up; open a shell; show the table; show its status; write a report",
    )
    name = parser.parse_args().command
    try:
        return commands[name](environment.read_options(os.environ, fills=name in {"run", "up", "shell"})) or 0
    except (StackError, TableError, ValueError) as error:
        return fail(str(error))
    except httpx.HTTPError as error:
        return fail(f"the stack's Prefect server does not respond ({error}): see {STATE / 'logs' / 'server.log'}")
    except KeyboardInterrupt:
        fail("stopped; nothing is left running")
        return INTERRUPTED


def run(options: Options) -> None:
    """Fill the table once and show its first rows."""
    with Stack(options) as stack:
        stack.start_all(options.deployment.rpartition("/")[2])
        from deployments.local.run import run_deployment  # noqa: PLC0415 (imports Prefect)

        stack.progress.begin(f"running {options.deployment}")
        run_deployment(stack, verbose=bool(os.environ.get("VERBOSE")))
        stack.progress.begin("showing the table")
        show(options, stack.addresses.store_url, rows=10)
        stack.progress.begin("stopping")
    stack.progress.say("done")
    print_commands(AFTER_RUN, given=options.given)


def up(options: Options) -> None:
    """Keep the stack up, with a schedule for the region active, until Ctrl-C."""
    with Stack(options) as stack:
        stack.start_all()
        from deployments.local.prepare import start_schedule  # noqa: PLC0415 (imports Prefect)

        start_schedule(stack.client, options.deployment, {"region_id": options.region_id} | options.parameters)
        print_commands(WHILE_UP, given=options.given, ui=stack.addresses.ui_url)
        exports = make_exports(stack.addresses)
        print("  Or, to use it from another shell in this folder:\n", *exports, "", sep="\n", flush=True)  # noqa: T201
        while True:
            stack.check()
            time.sleep(0.5)


def shell(options: Options) -> None:
    """Open the user's shell with the settings of the stack; one that is up already is used, and stays up."""
    program = os.environ.get("SHELL") or "/bin/sh"
    if not shutil.which(program):
        raise ValueError(f"SHELL is {program!r}, which is not a program that runs here: set it to a shell")
    running = find_running(options)
    if running and running.api_url:
        open_shell(options, running, program)
        return
    with Stack(options) as stack:
        stack.start_all()
        open_shell(options, stack.addresses, program)


def open_shell(options: Options, addresses: Addresses, program: str) -> None:
    """Run the user's shell in the environment of flow runs, with the project's `.venv`."""
    param = "".join(f" --param {name}={shlex.quote(json.dumps(value))}" for name, value in options.parameters.items())
    print_commands(IN_SHELL, deployment=options.deployment, param=param)
    environ = make_environment(addresses) | {"VIRTUAL_ENV": str(VENV)}
    handler = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the program that runs in the shell
    try:
        subprocess.run([program], cwd=CHECKOUT, env=environ, check=False)  # noqa: S603 (theirs)
    except OSError as error:
        raise ValueError(f"SHELL is {program!r}, which does not run ({error.strerror}): set it to a shell") from error
    finally:
        signal.signal(signal.SIGINT, handler)


def make_exports(addresses: Addresses) -> Iterator[str]:
    """Yield the lines that make a shell use a stack; with `STORE=aws`, boto3's settings stay the user's own."""
    yield "source .venv/bin/activate"
    if addresses.store_url:
        yield from (f"unset {names}" for names in MISLEADING)
    settings = {"PREFECT_API_URL": addresses.api_url, "ESI_URL": addresses.esi_url}
    for name, value in (settings | environment.aws_environment(addresses.store_url, {})).items():
        yield f"export {name}={shlex.quote(value)}"


def print_commands(commands: dict[str, str], **values: str) -> None:
    """Print commands to try next, ready to paste; one that is too long for its line continues on the next."""
    lines = []
    for what, command in commands.items():
        line = f"  {what:<26}{command.format(**values)}"
        parts = textwrap.wrap(line[28:], WIDTH - 6, break_long_words=False, break_on_hyphens=False)
        lines.append(line if len(line) <= WIDTH else f"  {what}\n    " + " \\\n    ".join(parts))
    print("", *lines, "", sep="\n", flush=True)  # noqa: T201 (a command's answer)


def table(options: Options) -> None:
    """Show the table."""
    with find_store(options) as addresses:
        show(options, addresses.store_url, os.environ.get("TYPE", "").strip())


def status(options: Options) -> int:
    """Print the status of tables; return 1 if one is stale or its last run failed."""
    markets = ["--markets", *map(str, options.markets)] if options.markets else []
    with find_store(options) as addresses:
        return call("deployments.status", ["--table-name", options.table_name, *markets], addresses)


def report(options: Options) -> int:
    """Write a report on the table and its last runs; return the exit code."""
    runs, file = os.environ.get("RUNS", "").strip(), STATE / f"report-{options.market_id or options.region_id}.html"
    with find_store(options, with_server=True) as addresses:
        given = ["--table-name", options.table_name, "--file", str(file.relative_to(CHECKOUT))]
        given += ["--market", str(options.market_id)] if options.market_id else []
        given += ["--runs", runs] if runs else []
        given += ["--made-up"] if is_made_up(options, addresses) else []
        return call("deployments.report", given, addresses)


def is_made_up(options: Options, addresses: Addresses) -> bool:
    """Return whether a local table's orders are the stand-in's, by the market of the stack that is up, or as given."""
    if options.store == "aws":
        return False
    return is_this_machine(urlsplit(addresses.esi_url).hostname or "") if addresses.esi_url else not options.esi_url


def call(module: str, given: list[str], addresses: Addresses) -> int:
    """Run a command with the settings of the stack, or the user's own with `STORE=aws`; return its exit code."""
    environ = make_environment(addresses) if addresses.store_url else dict(os.environ)
    command = [sys.executable, "-m", module, *given]
    return subprocess.run(command, cwd=CHECKOUT, env=environ, check=False).returncode  # noqa: S603 (ours)


@contextmanager
def find_store(options: Options, *, with_server: bool = False) -> Iterator[Addresses]:
    """Yield the addresses of the stack that is up; without one, of a store and a Prefect server until the block ends.

    With `STORE=aws`, the user's own settings apply, even if a stack is up.
    """
    if found := Addresses(os.getpid(), options.esi_url, "") if options.store == "aws" else find_running(options):
        yield found
        return
    with Stack(options) as stack:
        stack.progress.begin("starting the store and a Prefect server" if with_server else "starting the store")
        if with_server:
            stack.start_server()
        stack.start_store()
        if with_server:
            stack.wait_for_server()
        yield stack.addresses


def find_running(options: Options) -> Addresses | None:
    """Return the addresses of the stack that is up, None if none is up with this kind of store and this market."""
    running = read_addresses()
    if running is None or bool(running.store_url) != (options.store == "local"):
        return None
    return running if options.esi_url.rstrip("/") in {"", running.esi_url.rstrip("/")} else None


def show(options: Options, store_url: str, type_wanted: str = "", rows: int = 20) -> None:
    """Show the table, after giving boto3 the worker's settings."""
    environment.replace_settings("AWS_", environment.aws_environment(store_url, os.environ))
    show_table(options.table_name, type_wanted, rows, options.market_id)
