"""Runs a deployment as a user would, by Prefect's own command, and says how it ended."""

import re
import subprocess
import threading

from rich.console import Console
from rich.markdown import Markdown

from deployments.local.environment import DEPLOYMENTS
from deployments.local.stack import Stack, prefect

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
    if summary := stack.api.read_summary(found[1]):
        Console().print(Markdown(summary))
    stack.progress.say(state.reason)


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
    """Says how far a run's states have come, once a second, until the command that watches it has ended."""
    told: set[str] = set()
    is_last = False
    while not is_last:
        is_last = ended.wait(1.0)
        for words in stack.api.read_progress(run_id):
            if words not in told:
                told.add(words)
                stack.progress.say(f"  {words}")
