"""Run Shard: updates a share of the regions in a flow run of its own, on any worker, or here if none takes it."""

import threading
from collections.abc import Callable
from typing import Any

import httpx
from prefect import Task, task, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.objects import FlowRun, State, TaskRun, WorkPoolStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling

from tasks.catalogue.names import region_pages
from tasks.reporting.artifacts import create_artifact
from tasks.reporting.reporter import Reporter
from tasks.reporting.universe_summary import RegionResult, UniverseSummary, fail_region
from tasks.retries import NOT_KEPT, RETRIED

DEPLOYMENT = "universe/shard"
SHARD_TAG = "shard"  # of the deployment's runs
RESULT = "universe-shard"  # type of the artifact with a shard's summary, for the run that started it
POLL_SECONDS = 2.0
START_SECONDS = 30.0  # for a worker to take a share: they look every 10 to 15 s
SHARD_SECONDS = 2400.0  # 1,200 s for requests to ESI, and as long to wait for a worker


Keep = Callable[[list[int]], list[RegionResult]]  # keeps regions in this process


def is_server_trouble(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry when Prefect's server could not be reached; the shard's run goes on meanwhile."""
    return isinstance(state.data, httpx.TransportError | PrefectHTTPStatusError)


@task(
    name="Run Shard",
    task_run_name="Run Shard {number}",
    **RETRIED | NOT_KEPT | {"retry_condition_fn": is_server_trouble},
)
def run_shard(
    number: int, region_ids: list[int], parameters: dict[str, Any], report: Reporter, keep: Keep
) -> list[RegionResult]:
    """Return the results of a share of the regions; all failed if their run did.

    A share that no worker takes in time is kept here: this run may occupy the only worker's only slot.
    """
    markets = {each: own for each, own in (parameters.get("markets") or {}).items() if int(each) in region_ids}
    given = parameters | {"region_ids": region_ids, "markets": markets or None, "shards": 1}
    run = start_shard(number, given, START_SECONDS)
    if run.state and run.state.is_scheduled():
        get_run_logger().info("no worker has taken run %s in %.0f s: keeping its regions here", run.name, START_SECONDS)
        cancel(run)
        return keep(region_ids)
    results = read_results(start_shard(number, given, SHARD_SECONDS), region_ids)
    report.count(len(region_ids))
    return results


def run_shards(shares: list[list[int]], parameters: dict[str, Any], report: Reporter, keep: Keep) -> list[RegionResult]:
    """Run the deployment for each share, all at once, and return every region's result."""
    one_at_a_time = threading.Lock()

    def keep_here(region_ids: list[int]) -> list[RegionResult]:
        with one_at_a_time:
            return keep(region_ids)

    fixed = map(unmapped, (parameters, report, keep_here))
    found = run_shard.map(range(1, len(shares) + 1), shares, *fixed).result()
    return [result for results in found for result in results]


def deal_out(region_ids: list[int], shards: int) -> list[list[int]]:
    """Split regions, the largest first, into at most `shards` shares of about equal pages."""
    shares: list[list[int]] = [[] for _ in range(min(shards, len(region_ids)))]
    loads = [0] * len(shares)
    for region_id in region_ids:
        smallest = loads.index(min(loads))
        shares[smallest].append(region_id)
        loads[smallest] += region_pages(region_id)
    return shares


def start_shard(number: int, parameters: dict[str, Any], seconds: float) -> FlowRun:
    """Create a shard's run, only once per attempt of this flow run, and wait so many seconds for its end."""
    return run_deployment(  # type: ignore[return-value] # no coroutine: this is no async context
        DEPLOYMENT,
        parameters=parameters,
        timeout=seconds,
        poll_interval=POLL_SECONDS,
        idempotency_key=f"{flow_run.id}-{flow_run.run_count}-{number}",
    )


def read_results(run: FlowRun, region_ids: list[int]) -> list[RegionResult]:
    """Return the results of a shard's run that has ended, or cancel it if it timed out."""
    state = run.state
    if state is None or not state.is_final():
        cancel(run)
        why = f"run {run.name} was cancelled: it had not ended after {SHARD_SECONDS:.0f} s"
    elif summary := read_summary(run):
        return summary.regions
    else:
        why = f"run {run.name} ended as {state.name}: {state.message}"
    return [fail_region(region_id, why) for region_id in region_ids]


def save_summary(summary: UniverseSummary) -> None:
    """Save a shard's summary as an artifact, for the run that started it.

    Raises:
        httpx.HTTPError: Prefect's server could not be reached.
    """
    with get_client(sync_client=True) as client:
        create_artifact(client, RESULT, summary.model_dump(mode="json"), summary.line)


def read_summary(run: FlowRun) -> UniverseSummary | None:
    """Return the summary that a shard's run saved, None without one."""
    by_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), type=ArtifactFilterType(any_=[RESULT]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=by_run)
    return UniverseSummary.model_validate(found[0].data) if found else None


def cancel(run: FlowRun) -> None:
    """Cancel a run: through its worker if it is running, otherwise directly."""
    is_under_way = run.state is not None and run.state.is_running()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling() if is_under_way else Cancelled(), force=True)


def has_worker() -> bool:
    """Return whether the server has the deployment and a worker for it."""
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
            pool = client.read_work_pool(deployment.work_pool_name or "")
        except ObjectNotFound:
            get_run_logger().info("the server has no deployment %s: all regions run in this process", DEPLOYMENT)
            return False
    if pool.status != WorkPoolStatus.READY:
        get_run_logger().info("no worker is ready in the pool %s: all regions run in this process", pool.name)
        return False
    return True
