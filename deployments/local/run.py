"""Run the deployment of a region, show it at work, and say how it ended."""

import re
import time
from contextlib import nullcontext

from rich.console import Console
from rich.progress import Progress as Bars

from deployments.local.api import State
from deployments.local.environment import DEPLOYMENTS
from deployments.local.progress import wrap
from deployments.local.stack import Stack
from tasks.reporting.bars import make_bars

SUMMARY_SECONDS = 10.0
LOOK_SECONDS = 0.25
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
WORDS = re.compile(r"(.+): ([\d,]+) of ([\d,]+) (.+)")
LOGGED = re.compile(r"[\d:.]+ \| (?P<level>\w+) +\| (Flow|Task) run '.*?' - (?P<message>.*)")
STATE_ENDED = re.compile(r".* ends after [\d.,]+ s")


class FlowRunError(Exception):
    """The flow run did not complete."""


def run_deployment(stack: Stack, *, verbose: bool) -> None:
    """Run the deployment of the region that was asked for, show it at work, and print its summary.

    Args:
        stack: started.
        verbose: whether to show all of the worker's log, not only when states end, and warnings.

    Raises:
        FlowRunError: it did not complete; the reason, in one line.
    """
    options = stack.options
    given = {} if options.region_id in DEPLOYMENTS else {"region_id": options.region_id}
    run_id = stack.api.create_run(options.deployment, given)
    state = watch(stack, run_id, verbose=verbose)
    if state.type != "COMPLETED":
        raise FlowRunError(f"the flow run ended as {state.name}: {state.reason}")
    if state.name == "Completed":
        print_summary(read_summary(stack, run_id))
    stack.progress.say(state.reason)


def watch(stack: Stack, run_id: str, *, verbose: bool) -> State:
    """Show how far a run's states have come, as bars in a terminal, until it has ended; return its last state."""
    console = Console()
    with (
        stack.children["worker"].log.open(errors="replace") as log,
        make_bars(console) if console.is_terminal else nullcontext() as bars,
    ):
        shown: set[str] = set()
        rest = ""
        while True:
            state = stack.api.read_state(run_id)
            for words in stack.api.read_progress(run_id):
                if bars:
                    move_bar(bars, words)
                elif words not in shown:
                    stack.progress.say(f"  {words}")
                shown.add(words)
            *lines, rest = (rest + log.read()).split("\n")
            for line in lines:
                if said := line.strip() if verbose else pick(line):
                    stack.progress.say(f"  {said}")
            if state.type in ENDED:
                return state
            stack.check()
            time.sleep(LOOK_SECONDS)


def pick(line: str) -> str:
    """Return what is to be seen of a line of the worker's log: that a state has ended, a warning; else nothing."""
    found = LOGGED.match(line)
    is_shown = found and (found["level"] == "WARNING" or STATE_ENDED.match(found["message"]))
    return found["message"] if found and is_shown else ""


def read_summary(stack: Stack, run_id: str) -> str:
    """Return a run's summary without its pictures; wait for it, since a run leaves it after it has ended."""
    deadline = time.monotonic() + SUMMARY_SECONDS
    while not (summary := stack.api.read_summary(run_id)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return "\n".join(line for line in summary.splitlines() if not line.startswith("!["))


def print_summary(markdown: str) -> None:
    """Print a run's summary: the rows of its table, then what it says below."""
    print()  # noqa: T201 (a command's answer)
    for line in markdown.strip().splitlines():
        name, *values = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            print(wrap(line, "  "))  # noqa: T201 (a command's answer)
        elif any(values) and set("".join(values)) != {"-"}:
            print(wrap("  ".join(values), f"  {name:<24}  "))  # noqa: T201 (a command's answer)
    print()  # noqa: T201 (a command's answer)


def move_bar(bars: Bars, words: str) -> None:
    """Move the bar of a state to where its words say it is: `Fetch Pages: 21 of 433 pages`."""
    if found := WORDS.fullmatch(words):
        state, done, total, unit = found.groups()
        description = f"  {state}, {unit}"
        known = [task.id for task in bars.tasks if task.description == description]
        number = known[0] if known else bars.add_task(description, total=int(total.replace(",", "")))
        bars.update(number, completed=int(done.replace(",", "")))
