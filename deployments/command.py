"""Runs a flow from the command line: its parameters are the options."""

import argparse
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console

from deployments.local.progress import make_bars
from tasks.esi import EsiError
from tasks.reporter import Progress, Reporter
from tasks.table import TableError

UPDATE_SECONDS = 0.1


def run_flow(flow: Flow[..., Any], program: str, arguments: Sequence[str] | None = None) -> int:
    """Runs a flow with what the command line says, and gives the exit code: 1 if it failed, 2 if it was refused.

    Args:
        flow: gives a summary that has a `line`, or a line.
        program: what is typed to get here.
        arguments: instead of the process's own.
    """
    parameters = vars(make_parser(flow, program).parse_args(arguments))
    console = Console()
    try:
        with show_bars(console) if console.is_terminal else nullcontext():
            summary = flow(**parameters)
    except ParameterTypeError as error:
        print(error, file=sys.stderr)  # noqa: T201 (a command's answer)
        return 2
    except (EsiError, TableError, ValueError) as error:
        print(f"{flow.name} failed: {error}", file=sys.stderr)  # noqa: T201 (a command's answer)
        return 1
    console.print(getattr(summary, "line", summary), highlight=False, soft_wrap=True)
    return 0


def make_parser(flow: Flow[..., Any], program: str) -> argparse.ArgumentParser:
    """Gives the parser of a flow's parameters, as its schema has them; their values are the flow's to judge."""
    parser = argparse.ArgumentParser(
        program, description=flow.description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, schema in flow.parameters.properties.items():
        about: dict[str, Any] = {
            "required": name in flow.parameters.required,
            "default": schema.get("default"),
            "help": schema.get("description", "").replace("%", "%%"),
        }
        kind = schema.get("anyOf", [schema])[0]
        if kind.get("type") == "boolean":
            about["action"] = "store_true"
        elif kind.get("type") == "array":
            about |= {"nargs": "+", "metavar": name_kind(kind["items"])}
        else:
            about["metavar"] = name_kind(kind)
        parser.add_argument(f"--{name.replace('_', '-')}", **about)
    return parser


def name_kind(schema: dict[str, Any]) -> str:
    """Names what an option takes: its choices, or its type."""
    return "{" + ",".join(schema["enum"]) + "}" if "enum" in schema else str(schema["type"]).upper()


@contextmanager
def show_bars(console: Console) -> Iterator[None]:
    """Shows the work of each state as a bar, in place of the log's lines, but for warnings."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setLevel(logging.WARNING)
    ended = threading.Event()
    with make_bars(console) as bars:
        followers: list[threading.Thread] = []

        def follow(progress: Progress) -> None:
            bar = bars.add_task(f"{progress.name}, {progress.unit}", total=progress.total)

            def update() -> None:
                while not (progress.is_ended or ended.wait(UPDATE_SECONDS)):
                    bars.update(bar, completed=progress.done)
                bars.update(bar, completed=progress.done)
                bars.stop_task(bar)

            followers.append(threading.Thread(target=update))
            followers[-1].start()

        Reporter.watchers.append(follow)
        try:
            yield
        finally:
            Reporter.watchers.remove(follow)
            ended.set()
            for follower in followers:
                follower.join()
