"""Runs a flow from the command line, with its parameters as options."""

import argparse
import inspect
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tasks.reporting.failure import REASON, is_ours
from tasks.reporting.progress import bars


class Parser(argparse.ArgumentParser):
    """Parses a command line."""

    def error(self, message: str) -> NoReturn:
        """Report a mistake in one line, without the usage, and end the process with exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def run_flow(
    flow: Flow[..., Any],
    program: str,
    arguments: Sequence[str] | None = None,
    check: Callable[..., object] = lambda: None,
) -> int:
    """Run a flow that returns a summary with a `line`, or a line, with options from the command line.

    `check` raises a ValueError if valid parameters contradict each other; it is called with those that it names.

    Returns:
        The exit code: 1 if the flow failed; 2 if its parameters were refused, before any run.
    """
    parameters = vars(make_parser(flow, program).parse_args(arguments))
    console = Console()
    show_run(console)
    try:
        given = flow.validate_parameters(parameters)
        check(**{name: given[name] for name in inspect.signature(check).parameters})
    except (ParameterTypeError, ValueError) as error:
        print(f"{program}: {describe_refusal(error)}", file=sys.stderr)  # noqa: T201 (a command's output)
        return 2
    try:
        with bars.get() or nullcontext():
            summary = flow(**parameters)
    except Exception as error:
        if not is_ours(error):
            raise
        print(f"{flow.name} failed: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 1
    console.print(getattr(summary, "line", summary), highlight=False, soft_wrap=True)
    return 0


def describe_refusal(error: Exception) -> str:
    """Return why parameters were refused, in one line: `--region-id: 'Jita' is refused: give …`."""
    refusals = re.findall(r"^ - (\w+)(.*?): (?:Value error, )?(.*)$", str(error), re.MULTILINE)
    return "; ".join(f"{name_option(name)}{line}: {why}" for name, line, why in refusals) or str(error)


def make_parser(flow: Flow[..., Any], program: str) -> Parser:
    """Return a parser for the parameters in a flow's schema; the flow itself validates their values."""
    about, _, _rest = (flow.description or "").partition("\n")
    parser = Parser(program, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    objects: list[str] = []
    for name, schema in flow.parameters.properties.items():
        is_required, default = name in flow.parameters.required, schema.get("default")
        kind = schema.get("anyOf", [schema])[0]
        kind = (flow.parameters.definitions or {}).get(kind.get("$ref", "").rpartition("/")[2], kind)
        shape: dict[str, Any]
        if kind.get("type") == "boolean":
            shape = {"action": "store_true"}
        elif kind.get("type") == "object":
            objects += describe_members(name, kind)
            shape = {"metavar": "JSON", "type": read_json}
        else:
            value = kind.get("items", kind)
            metavar = f"{{{','.join(value['enum'])}}}" if "enum" in value else value["type"].upper()
            shape = {"metavar": metavar, "nargs": "+" if "items" in kind else None}
        meaning = schema.get("description") or kind.get("description", "")
        text = f"{meaning} {'(required)' if is_required else f'(default: {default})'}".replace("%", "%%")
        parser.add_argument(name_option(name), help=text, required=is_required, default=default, **shape)
    parser.epilog = "\n".join(objects)
    return parser


def describe_members(parameter: str, schema: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that say what an object's JSON may have; none if its members have no names."""
    for name, member in schema.get("properties", {}).items():
        wanted = "required" if name in schema.get("required", []) else f"default: {json.dumps(member.get('default'))}"
        yield f"{name_option(parameter)} {name}: {member['description']} ({wanted})"


def read_json(text: str) -> Any:  # noqa: ANN401 (whatever it is, the flow validates it)
    """Return an option's JSON value; raise an ArgumentTypeError, which argparse reports, if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not JSON: {error}") from None


def name_option(parameter: str) -> str:
    """Return a parameter's option."""
    return f"--{parameter.replace('_', '-')}"


def show_run(console: Console) -> None:
    """Show a run's states as bars, below warnings, or outside a terminal its log."""
    if console.is_terminal:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        bars.set(Progress(*columns, console=console))
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(is_shown)
            handler.setLevel(logging.WARNING if console.is_terminal else handler.level)


def is_shown(record: logging.LogRecord) -> bool:
    """Return whether the console shows a log line: not why the flow failed, which the command's last line says."""
    return not record.getMessage().startswith(REASON) and record.name != "prefect.flows"  # which logs refusals
