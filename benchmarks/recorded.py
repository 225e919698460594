"""What Prefect's server has recorded of a flow's newest run: when it ended, and when its states were at work."""

import re
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort

from benchmarks.cases import Span


def read_run(api_url: str, flow_name: str, since: float = 0.0) -> FlowRun:
    """Return a flow's newest run that began after a unix time."""
    of_flow = filters.FlowFilter(name=filters.FlowFilterName(any_=[flow_name]))
    after = filters.FlowRunFilterStartTime(after_=datetime.fromtimestamp(since, UTC))
    started, newest = filters.FlowRunFilter(start_time=after), FlowRunSort.START_TIME_DESC
    with SyncPrefectClient(api_url) as client:
        return client.read_flow_runs(flow_filter=of_flow, flow_run_filter=started, sort=newest, limit=1)[0]


def read_spans(api_url: str, flow_name: str) -> list[Span]:
    """Return the states of a flow's newest run, in their order, and the run itself last."""
    flow_run = read_run(api_url, flow_name)
    with SyncPrefectClient(api_url) as client:
        wanted = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[flow_run.id]))
        task_runs = client.read_task_runs(flow_run_filter=wanted)
    return to_spans(task_runs, flow_run)


def to_spans(task_runs: list[TaskRun], flow_run: FlowRun) -> list[Span]:
    """Return one span a state, from its first task run's start to its last one's end, and one of the flow run."""
    by_state: dict[str, list[tuple[float, float]]] = {}
    for run in [*sorted(task_runs, key=start_of), flow_run]:
        # A task run is named for its state and, where that is mapped, its pages or part.
        state = re.sub(r" \d[\d–]*$", "", run.name) if isinstance(run, TaskRun) else "flow run"
        if run.end_time:
            times = start_of(run) - start_of(flow_run), run.end_time.timestamp() - start_of(flow_run)
            by_state.setdefault(state, []).append(times)
    return [
        Span(state, len(times), min(start for start, _ in times), max(end for _, end in times))
        for state, times in by_state.items()
    ]


def start_of(run: FlowRun | TaskRun) -> float:
    """Return the unix time of a run's start, 0 if it has not begun."""
    return run.start_time.timestamp() if run.start_time else 0.0
