"""Runs a deployment as a user would, by Prefect's own command, and says how it ended."""

import re
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress as Bars

from deployments.local.environment import DEPLOYMENTS
from deployments.local.progress import make_bars
from deployments.local.stack import Stack, prefect

SUMMARY_SECONDS = 10.0
BAR_SECONDS, LINE_SECONDS = 0.25, 1.0  # between two looks
WORDS = re.compile(r"(.+): ([\d,]+) of ([\d,]+) (.+)")
RUN_ID = re.compile(r"UUID: ([0-9a-f-]{36})")


class FlowRunError(Exception):
    """The flow run did not complete."""


def run_deployment(stack: Stack) -> None:
    """Runs the deployment of the region that was asked for, shows it at work, and prints its summary.

    Raises:
        FlowRunError: it did not complete; the reason, in one line.
    """
    options = stack.options
    command = [prefect(), "deployment", "run", options.deployment, "--watch"]
    if options.region_id not in DEPLOYMENTS:
        command += ["--param", f"region_id={options.region_id}"]
    output = watch(command, stack)
    found = RUN_ID.search(output)
    if not found:
        raise FlowRunError(f"there was no flow run: {' '.join(output.split())}")
    state = stack.api.read_state(found[1])
    if state.type != "COMPLETED":
        raise FlowRunError(f"the flow run ended as {state.name}: {state.reason}")
    if state.name == "Completed":
        Console().print(Markdown(read_summary(stack, found[1])))
    stack.progress.say(state.reason)


def read_summary(stack: Stack, run_id: str) -> str:
    """Gives a run's summary without its pictures; waits for it, since a run leaves it after it has ended."""
    deadline = time.monotonic() + SUMMARY_SECONDS
    while not (summary := stack.api.read_summary(run_id)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return "\n".join(line for line in summary.splitlines() if not line.startswith("!["))


def watch(command: list[str], stack: Stack) -> str:
    """Runs a command, shows its output while it comes, and gives all of it."""
    lines: list[str] = []
    ended = threading.Event()
    followers: list[threading.Thread] = []
    with subprocess.Popen(  # noqa: S603 (our own command)
        command,
        env=stack.environ | {"COLUMNS": "160"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout or []:
                stack.progress.say(f"  {line.rstrip()}")
                stack.check()
                lines.append(line)
                if found := RUN_ID.search(line):
                    followers.append(threading.Thread(target=follow, args=(stack, found[1], ended)))
                    followers[-1].start()
        finally:
            ended.set()
            process.terminate()
            for follower in followers:
                follower.join()
    return "".join(lines)


def follow(stack: Stack, run_id: str, ended: threading.Event) -> None:
    """Shows how far a run's states have come, until the command that watches it has ended: as bars in a terminal."""
    console = Console()
    with make_bars(console) if console.is_terminal else nullcontext() as bars:
        tell: Callable[[str], None] = partial(move_bar, bars) if bars else partial(say, stack)
        told: set[str] = set()
        is_last = False
        while not is_last:
            is_last = ended.wait(BAR_SECONDS if bars else LINE_SECONDS)
            for words in stack.api.read_progress(run_id):
                if words not in told:
                    told.add(words)
                    tell(words)


def say(stack: Stack, words: str) -> None:
    """Says how far a state has come."""
    stack.progress.say(f"  {words}")


def move_bar(bars: Bars, words: str) -> None:
    """Moves the bar of a state to where its words say it is: `Fetch Pages: 21 of 433 pages`."""
    if found := WORDS.fullmatch(words):
        state, done, total, unit = found.groups()
        description = f"  {state}, {unit}"
        known = [task.id for task in bars.tasks if task.description == description]
        number = known[0] if known else bars.add_task(description, total=int(total.replace(",", "")))
        bars.update(number, completed=int(done.replace(",", "")))
