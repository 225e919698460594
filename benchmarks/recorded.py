"""What Prefect's server recorded about a flow's latest run: its end, and the time spans of its states."""

import re
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort


def read_run(api_url: str, flow_name: str, since: float = 0.0) -> FlowRun:
    """Return a flow's latest run that started after a unix time."""
    of_flow = filters.FlowFilter(name=filters.FlowFilterName(any_=[flow_name]))
    after = {"start_time": {"after_": datetime.fromtimestamp(since, UTC)}}
    started, latest = filters.FlowRunFilter.model_validate(after), FlowRunSort.START_TIME_DESC
    with SyncPrefectClient(api_url) as client:
        return client.read_flow_runs(flow_filter=of_flow, flow_run_filter=started, sort=latest, limit=1)[0]


def read_states(api_url: str, flow_name: str) -> list[list[str]]:
    """Return the time spans of the states of a flow's latest run."""
    flow_run = read_run(api_url, flow_name)
    with SyncPrefectClient(api_url) as client:
        wanted = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[flow_run.id]))
        return list_states(client.read_task_runs(flow_run_filter=wanted), flow_run)


def list_states(task_runs: list[TaskRun], flow_run: FlowRun) -> list[list[str]]:
    """Return a row per state: its task runs, and the seconds from the flow run's start to their first start and end."""
    spans: dict[str, list[list[float]]] = {}
    runs: list[TaskRun | FlowRun] = [*sorted(task_runs, key=lambda run: str(run.start_time)), flow_run]
    for run in runs:
        # A task run's name is its state, followed by pages or part if the state is mapped.
        state = re.sub(r" \d[\d–-]*$", "", run.name) if isinstance(run, TaskRun) else "flow run"
        if flow_run.start_time and run.start_time and run.end_time:
            span = [(time - flow_run.start_time).total_seconds() for time in (run.start_time, run.end_time)]
            spans.setdefault(state, []).append(span)
    ends = {state: max(end for _, end in each) for state, each in spans.items()}
    return [[state, str(len(each)), f"{each[0][0]:.2f}", f"{ends[state]:.2f}"] for state, each in spans.items()]
