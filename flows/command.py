"""Runs a flow from the command line: its parameters are the options."""

import argparse
import inspect
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console

from flows.parameters import OrGive
from tasks.reporting.bars import make_bars
from tasks.reporting.failure import REASON, is_ours
from tasks.reporting.progress import Progress, watcher

UPDATE_SECONDS = 0.1


class Parser(argparse.ArgumentParser):
    """Parses a command line, and refuses a wrong one in one line: `--help` has the rest."""

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def run_flow(
    flow: Flow[..., Any],
    program: str,
    arguments: Sequence[str] | None = None,
    check: Callable[[dict[str, Any]], None] = lambda _parameters: None,
) -> int:
    """Run a flow with what the command line says, and return the exit code: 1 if it failed, 2 if it was refused.

    What is refused never becomes a run.

    Args:
        flow: returns a summary that has a `line`, or a line.
        program: what is typed to get here.
        arguments: instead of the process's own.
        check: raises a ValueError if the parameters, each valid, do not go together.
    """
    parameters = vars(make_parser(flow, program).parse_args(arguments))
    console = Console()
    with say_reason_once(flow):
        try:
            check(flow.validate_parameters(parameters))
        except (ParameterTypeError, ValueError) as error:
            print(f"{program}: {describe_refusal(error)}", file=sys.stderr)  # noqa: T201 (a command's answer)
            return 2
        try:
            with show_bars(console) if console.is_terminal else nullcontext():
                summary = flow(**parameters)
        except Exception as error:
            if not is_ours(error):
                raise
            print(f"{flow.name} failed: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
            return 1
    console.print(getattr(summary, "line", summary), highlight=False, soft_wrap=True)
    return 0


def describe_refusal(error: Exception) -> str:
    """Return in one line why parameters are refused: `--region-id: 'Jita' is refused: give …`."""
    refusals = re.findall(r"^ - ([\w.]+): (.*)$", str(error), re.MULTILINE)
    return "; ".join(f"{name_option(name)}: {why}" for name, why in refusals) or str(error)


def make_parser(flow: Flow[..., Any], program: str) -> Parser:
    """Return the parser of a flow's parameters, as its schema has them; their values are the flow's to judge."""
    parser = Parser(program, description=flow.description)
    signature = inspect.signature(flow.fn)
    for name, schema in flow.parameters.properties.items():
        is_required = name in flow.parameters.required
        about: dict[str, Any] = {"required": is_required, "default": schema.get("default")}
        said = [schema.get("description", ""), "(required)" if is_required else f"(default: {about['default']})"]
        kind = schema.get("anyOf", [schema])[0]
        if kind.get("type") == "boolean":
            about["action"] = "store_true"
        else:
            said += [f"Give {allowed}." for allowed in read_allowed(signature.parameters[name].annotation)]
            if kind.get("type") == "array":
                about |= {"nargs": "+", "metavar": name_kind(kind["items"])}
            else:
                about["metavar"] = name_kind(kind)
        parser.add_argument(name_option(name), help=" ".join(said).replace("%", "%%"), **about)
    return parser


def name_option(parameter: str) -> str:
    """Return the option of a parameter."""
    return f"--{parameter.replace('_', '-')}"


def read_allowed(annotation: Any) -> list[str]:  # noqa: ANN401 (whatever a flow declares)
    """Return what a parameter may be, in words, as its type says; nothing if that does not."""
    return [each.allowed for each in getattr(annotation, "__metadata__", ()) if isinstance(each, OrGive)]


def name_kind(schema: dict[str, Any]) -> str:
    """Name what an option takes: its choices, or its type."""
    return "{" + ",".join(schema["enum"]) + "}" if "enum" in schema else str(schema["type"]).upper()


@contextmanager
def say_reason_once(flow: Flow[..., Any]) -> Iterator[None]:
    """Keep off the console those lines of Prefect's log that say why this flow failed: the command's last line does."""

    def is_shown(record: logging.LogRecord) -> bool:
        if record.name == "prefect.flows":  # which says on many lines what is wrong with parameters
            return False
        return not (record.getMessage().startswith(REASON) and getattr(record, "flow_name", "") == flow.name)

    handlers = find_consoles()
    for handler in handlers:
        handler.addFilter(is_shown)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_shown)


def find_consoles() -> list[logging.Handler]:
    """Return what writes Prefect's log to the console."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, PrefectConsoleHandler)]


@contextmanager
def show_bars(console: Console) -> Iterator[None]:
    """Show the work of each state as a bar, in place of the log's lines, but for warnings."""
    for handler in find_consoles():
        handler.setLevel(logging.WARNING)
    with make_bars(console) as bars:
        followers: list[threading.Thread] = []

        def follow(progress: Progress) -> None:
            bar = bars.add_task(f"{progress.name}, {progress.unit}", total=progress.total)

            def update() -> None:
                while not progress.wait(UPDATE_SECONDS):
                    bars.update(bar, completed=progress.done)
                bars.update(bar, completed=progress.done)
                bars.stop_task(bar)

            followers.append(threading.Thread(target=update))
            followers[-1].start()

        token = watcher.set(follow)
        try:
            yield
        finally:
            watcher.reset(token)
            for follower in followers:
                follower.join()
