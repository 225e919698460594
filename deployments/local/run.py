"""Run a region's deployment, show its progress and its summary."""

import time
from collections import defaultdict
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import State, filters, objects, sorting
from prefect.exceptions import ObjectNotFound
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deployments.local.processes import StackError
from deployments.local.progress import strip_prefix, wrap
from deployments.local.stack import Stack

SUMMARY_SECONDS = 10.0
POLL_SECONDS = 0.25


def run_deployment(stack: Stack, *, verbose: bool) -> None:
    """Run the deployment of the stack's region and print its summary; raise StackError unless the run completes."""
    options, client = stack.options, stack.client
    try:
        deployment = client.read_deployment_by_name(options.deployment)
        run_id = client.create_flow_run_from_deployment(deployment.id, parameters=options.parameters).id
        state = watch(stack, run_id, verbose=verbose)
    except ObjectNotFound as error:
        raise StackError(f"the flow run or its deployment was deleted: {error}") from error
    reason = strip_prefix(state.message or str(state.name))
    if not state.is_completed():
        raise StackError(f"the flow run ended as {state.name}: {reason}")
    if state.name == "Completed":
        print_summary(read_summary(client, run_id))
    stack.progress.say(reason)


def watch(stack: Stack, run_id: UUID, *, verbose: bool) -> State:
    """Show the progress of a run's states until it ends, as bars in a terminal; return the final state.

    With `verbose`, show all of the worker's log, not only warnings and the end of each state.
    """
    console = Console()
    columns = TextColumn(" "), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    said: set[str] = set()
    rest = ""
    with (
        stack.children["worker"].log.open(errors="replace") as log,
        Progress(*columns, console=console, disable=not console.is_terminal) as bars,
    ):
        tasks: defaultdict[UUID, TaskID] = defaultdict(lambda: bars.add_task(""))
        while True:
            state = stack.client.read_flow_run(run_id).state
            for artifact in [each for each in read_artifacts(stack.client, run_id) if each.type == "progress"]:
                words = str(artifact.description)
                bars.update(tasks[artifact.id], completed=float(str(artifact.data)), description=words)
                if bars.disable and words not in said:
                    stack.progress.say(f"  {words}")
                said.add(words)
            *lines, rest = (rest + log.read()).split("\n")
            for line in lines:
                if found := line.strip() if verbose else pick(line):
                    stack.progress.say(f"  {found}")
            if state and state.is_final():
                return state
            stack.check()
            stack.progress.breathe()
            time.sleep(POLL_SECONDS)


def pick(line: str) -> str:
    """Return the message of a line of the worker's log if it is a warning or the end of a state, else nothing."""
    head, _, message = line.partition("' - ")  # 12:34:56.789 | WARNING | Task run 'name' - message
    is_of_run = " | Flow run '" in head or " | Task run '" in head
    return message if is_of_run and (" | WARNING | " in head or " ends after " in message) else ""


def read_artifacts(client: SyncPrefectClient, run_id: UUID) -> list[objects.Artifact]:
    """Return a run's artifacts, oldest first; those of progress have a percentage, and counts in `description`."""
    wanted = filters.ArtifactFilter.model_validate({"flow_run_id": {"any_": [run_id]}})
    return client.read_artifacts(artifact_filter=wanted, sort=sorting.ArtifactSort.CREATED_DESC)[::-1]


def read_summary(client: SyncPrefectClient, run_id: UUID) -> str:
    """Return a run's summary without its pictures; wait for it, since a run writes it after it has ended."""
    deadline = time.monotonic() + SUMMARY_SECONDS
    while time.monotonic() < deadline:
        for artifact in read_artifacts(client, run_id):
            if str(artifact.key).startswith("summary-"):
                return "\n".join(line for line in str(artifact.data).splitlines() if not line.startswith("!["))
        time.sleep(0.1)
    return ""


def print_summary(markdown: str) -> None:
    """Print a run's summary: the rows of its table, then the text below it."""
    print()  # noqa: T201 (a command's answer)
    for line in markdown.strip().splitlines():
        name, *values = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            print(wrap(line, "  "))  # noqa: T201 (a command's answer)
        elif any(values) and set("".join(values)) != {"-"}:
            print(wrap("  ".join(values), f"  {name:<24}  "))  # noqa: T201 (a command's answer)
    print()  # noqa: T201 (a command's answer)
