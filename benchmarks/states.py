"""Where a flow run's time goes, state by state, by the timestamps that Prefect keeps itself."""

import re
import time
from datetime import datetime

import httpx
import msgspec

from benchmarks.cases import Span

FLOW_RUN, LAST = "flow run", "Store Records: complete"
ATTEMPTS, ATTEMPT_SECONDS = 50, 0.2  # the server writes task runs down a little later


class Run(msgspec.Struct, frozen=True):
    """A flow run or a task run, as Prefect's API gives it."""

    id: str
    name: str
    start_time: datetime | None
    end_time: datetime | None


class Times(msgspec.Struct, frozen=True):
    """A run that has ended."""

    state: str
    begun: float  # unix time
    ended: float


def read_spans(api_url: str, flow_name: str) -> list[Span]:
    """Return the states of a flow's newest run that stored something, in their order, and the run itself last.

    Raises:
        TimeoutError: the server does not say how its task runs ended.
    """
    newest = {"flows": {"name": {"any_": [flow_name]}}, "sort": "START_TIME_DESC", "limit": 1}
    with httpx.Client(base_url=api_url, timeout=30, trust_env=False) as http:
        for _ in range(ATTEMPTS):
            flow_runs = ask(http, "/flow_runs/filter", newest)
            of_it: dict[str, object] = {"flow_runs": {"id": {"any_": [run.id for run in flow_runs]}}}
            runs = [*ask(http, "/task_runs/filter", of_it), *flow_runs]
            times = [to_times(run) for run in runs if run.start_time and run.end_time]
            if len(times) == len(runs) and LAST in {run.name for run in runs}:
                return to_spans(times[:-1], times[-1])
            time.sleep(ATTEMPT_SECONDS)
    raise TimeoutError(f"{flow_name} has runs without an end after {ATTEMPTS * ATTEMPT_SECONDS:.0f} s")


def ask(http: httpx.Client, path: str, wanted: dict[str, object]) -> list[Run]:
    """Ask for runs."""
    return msgspec.json.decode(
        http.post(path.removeprefix("/"), json=wanted).raise_for_status().content, type=list[Run]
    )


def to_times(run: Run) -> Times:
    """Return when a run that has ended began and ended, and which state it is of, which its name begins with."""
    assert run.start_time
    assert run.end_time
    state = re.sub(r" \d[\d–]*$", "", run.name)
    return Times(state, run.start_time.timestamp(), run.end_time.timestamp())


def to_spans(task_runs: list[Times], flow_run: Times) -> list[Span]:
    """Return one span a state, from its first task run's start to its last one's end."""
    by_state: dict[str, list[Times]] = {}
    for run in sorted(task_runs, key=lambda run: run.begun):
        by_state.setdefault(run.state, []).append(run)
    by_state[FLOW_RUN] = [flow_run]
    return [
        Span(
            state,
            len(runs),
            min(run.begun for run in runs) - flow_run.begun,
            max(run.ended for run in runs) - flow_run.begun,
        )
        for state, runs in by_state.items()
    ]
