"""Run Region: one region's run of the flow `market-data`, by whichever worker takes it, or in this process."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import httpx
import msgspec
from prefect import Task, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, TaskRun, WorkPoolStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Cancelling, Completed

from tasks.reporting.reporter import SUMMARY_LABEL, Reporter
from tasks.reporting.summary import Summary
from tasks.retries import NOT_KEPT, RETRIED

DEPLOYMENT = "market-data/universe"
POLL_SECONDS = 2.0
LABEL_SECONDS = 60.0  # for a run's summary, once it has ended
REGION_SECONDS = 1800.0  # its run asks nothing after 1,200 s, and waits for a lease or a worker at most so much longer


class RegionError(Exception):
    """A region's run did not complete; the others' do."""


class RegionRun(msgspec.Struct):
    """A region's run."""

    region_id: int


def may_be_asked_again(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect to retry when its own server could not be reached; the region's run goes on meanwhile."""
    return isinstance(state.data, httpx.TransportError | PrefectHTTPStatusError)


@task(
    name="Run Region",
    task_run_name="Run Region {run.region_id}",
    **RETRIED | NOT_KEPT | {"retry_condition_fn": may_be_asked_again},
)
def run_region(run: RegionRun, parameters: dict[str, Any], market_data: Callable[..., Summary] | None) -> Summary:
    """Return the summary of a region's run.

    Args:
        run: which region.
        parameters: of the flow `market-data`, but for the region.
        market_data: that flow, to be run in this process; None for a run of its deployment.

    Raises:
        RegionError: the run did not complete.
    """
    wanted = parameters | {"region_id": run.region_id}
    summary = call_region(market_data, wanted) if market_data else read_summary(deploy_region(wanted))
    return cast("Summary", Completed(message=summary.line, data=summary))  # which Prefect unwraps


def run_regions(
    runs: Sequence[RegionRun],
    parameters: dict[str, Any],
    market_data: Callable[..., Summary] | None,
    concurrency: int,
    report: Reporter,
) -> dict[int, Summary | Exception]:
    """Run regions in their order, `concurrency` at once, and return each one's summary, or why it has none."""
    room = threading.Semaphore(concurrency)
    futures: dict[int, PrefectFuture[Summary]] = {}

    def end(_future: PrefectFuture[Summary]) -> None:
        report.count(1)
        room.release()

    for run in runs:
        room.acquire()
        futures[run.region_id] = run_region.submit(run, parameters, market_data)
        futures[run.region_id].add_done_callback(end)
    return {region_id: future.result(raise_on_failure=False) for region_id, future in futures.items()}


def deploy_region(parameters: dict[str, Any]) -> FlowRun:
    """Create a region's run, once however often it is called in an attempt of a flow run, and wait for its end."""
    return run_deployment(  # type: ignore[return-value] # no coroutine: this is no async context
        DEPLOYMENT,
        parameters=parameters,
        timeout=REGION_SECONDS,
        poll_interval=POLL_SECONDS,
        idempotency_key=f"{flow_run.id}-{flow_run.run_count}-{parameters['region_id']}",
    )


def call_region(market_data: Callable[..., Summary], parameters: dict[str, Any]) -> Summary:
    """Run a region as a subflow, in this process.

    Raises:
        RegionError: it failed.
    """
    try:
        return market_data(**parameters)
    except Exception as error:
        raise RegionError(f"region {parameters['region_id']}: {error}") from error


def read_summary(run: FlowRun) -> Summary:
    """Return the summary of a run that has ended.

    Raises:
        RegionError: it did not complete, or not in time.
    """
    region_id = run.parameters["region_id"]
    state = run.state
    if state is None or not state.is_final():
        cancel(run)
        raise RegionError(f"region {region_id}: run {run.name} had not ended after {REGION_SECONDS:.0f} s: cancelled")
    if not state.is_completed():
        raise RegionError(f"region {region_id}: run {run.name} ended as {state.name}: {state.message}")
    labels = wait_for_labels(run)
    if SUMMARY_LABEL not in labels:
        raise RegionError(f"region {region_id}: run {run.name} completed, but what it did is not known: see its log")
    return Summary.model_validate_json(str(labels[SUMMARY_LABEL]))


def wait_for_labels(run: FlowRun) -> dict[str, Any]:
    """Return the labels of a run that has ended; its summary may come a moment later, as no report holds a run up."""
    deadline = time.monotonic() + LABEL_SECONDS
    with get_client(sync_client=True) as client:
        while SUMMARY_LABEL not in run.labels and time.monotonic() < deadline:
            time.sleep(0.1)
            run = client.read_flow_run(run.id)
    return dict(run.labels)


def cancel(run: FlowRun) -> None:
    """Cancel a run: one that no worker has taken at once, one that is under way by its worker."""
    is_under_way = run.state is not None and run.state.is_running()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling() if is_under_way else Cancelled(), force=True)


def find_workers() -> bool:
    """Return whether the server has the deployment, and a worker to run it.

    Without a server, or with nobody there who would ever begin, regions are run in this process.
    """
    if not PREFECT_API_URL.value():
        return False
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
            pool = client.read_work_pool(deployment.work_pool_name or "")
        except ObjectNotFound:
            get_run_logger().info("the server has no deployment %s: regions run in this process", DEPLOYMENT)
            return False
    if pool.status != WorkPoolStatus.READY:
        get_run_logger().info("no worker is ready in the pool %s: regions run in this process", pool.name)
        return False
    return True
