"""When a deployment runs next, and with which parameters.

A schedule fires half an interval late on average, since it does not know when ESI's data change. So each scheduled run
creates a follower for a few seconds after ESI's `Expires`, and the schedule is the safety net. Both use their
deployment's parameters as of their start; custom parameters of a manual run apply to that run only.
"""

import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import httpx
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import DeploymentSchedule, FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Scheduled
from prefect.utilities.callables import get_call_parameters
from prefect.utilities.hashing import hash_objects

from tasks.reporting.failure import explain_failure
from tasks.reporting.outcome import keep_summary, outcome, report_outcome
from tasks.reporting.reporter import report_in_background
from tasks.reporting.summary import AnySummary, SourceSummary
from tasks.reporting.universe_summary import UniverseSummary

TAG = "follows-esi"
AT_EXPIRES = "at-expires"  # tag of a universe deployment whose rounds follow ESI's `Expires`
SCHEDULE_LABEL = "market-data.schedule"  # of a follower: the id of its schedule, and the slug
JITTER_SECONDS = (2.0, 8.0)  # after `Expires`, so that clients do not all come at once
MOMENT = timedelta(seconds=15)
ATTEMPTS = 10  # to create a follower for one snapshot: earlier ones may have been cancelled, or ran too early
MAX_AHEAD = timedelta(minutes=15)  # orders change every five minutes; for rarer changes the schedule suffices

P = ParamSpec("P")
R = TypeVar("R")


def as_deployed(flow: Flow[P, R]) -> Flow[P, R]:
    """Make a flow's scheduled runs use their deployment's parameters as of their start.

    Cancel a follower if its deployment is no longer scheduled, but never a manual retry.
    """
    body = flow.fn

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        context = FlowRunContext.get()
        flow_run = context and context.flow_run
        if not context or not flow_run or not is_scheduled(flow_run):
            return body(*args, **kwargs)
        parameters = read_parameters(flow_run)
        if parameters is None:
            return cast("R", Cancelled(message="The deployment was deleted or paused, or its schedule deactivated."))
        if parameters == flow_run.parameters:
            return body(*args, **kwargs)
        get_run_logger().info("the deployment has changed since this run was created: using its present parameters")
        context.parameters = flow_run.parameters = parameters  # for the hooks too
        report_in_background(SyncPrefectClient.update_flow_run, flow_run.id, parameters=parameters)
        context.parameters = get_call_parameters(body, (), flow.validate_parameters(parameters))  # with defaults
        return body(**context.parameters)  # type: ignore[call-arg] # ParamSpec knows no names

    flow.fn = run
    return flow


def read_parameters(flow_run: FlowRun) -> dict[str, Any] | None:
    """Return what a scheduled run's deployment has now, the run's own if that is unknown; None to cancel it."""
    log = get_run_logger()
    try:
        deployment, schedule = read_deployment(flow_run)
    except (PrefectHTTPStatusError, httpx.HTTPError) as error:
        reason = f"{type(error).__name__}: {error}"
        log.warning("the deployment could not be read, so this run keeps its parameters: %s", reason)
        return flow_run.parameters
    is_on = deployment and not deployment.paused and schedule and schedule.active
    if TAG in flow_run.tags and flow_run.run_count <= 1 and not is_on:
        return None
    if deployment is None:
        log.warning("the deployment of this run was deleted: keeping its parameters")
        return flow_run.parameters
    return deployment.parameters | (schedule.parameters if schedule else {})


def is_scheduled(flow_run: FlowRun) -> bool:
    """Return whether a run was created by a schedule, or follows one that was."""
    return bool(flow_run.deployment_id) and (flow_run.auto_scheduled or TAG in flow_run.tags)


def read_deployment(flow_run: FlowRun) -> tuple[DeploymentResponse | None, DeploymentSchedule | None]:
    """Return a run's present deployment, and the schedule behind the run; None for what was deleted.

    Raises:
        PrefectHTTPStatusError: the server refused.
        httpx.HTTPError: the server could not be reached.
    """
    assert flow_run.deployment_id
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        deployment = client.read_deployment(flow_run.deployment_id)
        return deployment, find_schedule(flow_run, deployment.schedules)
    return None, None


def find_schedule(flow_run: FlowRun, schedules: Sequence[DeploymentSchedule]) -> DeploymentSchedule | None:
    """Return the schedule that created a run or the run it follows, None if it was deleted.

    A redeployment gives schedules new ids. Then match by slug, else by parameters, else take the only one.
    """
    creator = flow_run.created_by
    created_by = f"{creator.id} {creator.display_value}" if creator and creator.type == "SCHEDULE" else ""
    schedule_id, _, slug = str(flow_run.labels.get(SCHEDULE_LABEL, created_by)).partition(" ")
    same_id = [schedule for schedule in schedules if str(schedule.id) == schedule_id]
    same_slug = [schedule for schedule in schedules if slug and schedule.slug == slug]
    fitting = [schedule for schedule in schedules if schedule.parameters.items() <= flow_run.parameters.items()]
    fitting.sort(key=lambda schedule: (-len(schedule.parameters), not schedule.active))
    found = same_id or same_slug or fitting or (schedules if len(schedules) == 1 else [])
    return found[0] if found else None


def schedule_next(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's)
    """Create the follower of a completed scheduled run, for shortly after ESI's next `Expires`, unless one exists.

    Rounds of `universe` without the tag `at-expires`, and deployments without an active schedule, are not followed. A
    failure is logged and sent as the event `market.follow.failed`; the deployment then next runs on its schedule.
    """
    result, summaries, _changes = outcome.get()
    is_followed = AT_EXPIRES in flow_run.tags or not isinstance(result, UniverseSummary)
    now = datetime.now(UTC)
    most_ahead = timedelta.max if isinstance(result, SourceSummary) else MAX_AHEAD  # a source says itself how far
    starts = {when: each for each in summaries if (when := next_start(each.expires, now, most_ahead))}
    if not (starts and is_followed and is_scheduled(flow_run)):
        return
    when = min(starts)
    summary = starts[when]
    try:
        create_follower(flow_run, summary, when)
    except Exception as error:  # noqa: BLE001 (it must not fail a completed run)
        reason = f"no run could be scheduled for {when:%Y-%m-%d %H:%M:%S} UTC: {type(error).__name__}: {error}"
        get_run_logger().error("%s; the next run is the deployment's next scheduled one", reason)
        payload = {"reason": reason, "table_name": summary.table_name}
        emit_event("market.follow.failed", summary.subject.resource, payload=payload)


# Options of the flows that keep one table.
KEEPS_TABLE: dict[str, Any] = {
    "persist_result": False,
    "on_completion": [keep_summary, schedule_next, report_outcome],
    "on_failure": [explain_failure],
}


def create_follower(flow_run: FlowRun, summary: AnySummary, when: datetime) -> None:
    """Create a run's follower, unless one exists.

    Any follower with the present parameters will do, so chains of runs merge. The idempotency key gives two runs that
    create one at the same time the same follower.
    """
    deployment, schedule = read_deployment(flow_run)
    if deployment is None or deployment.paused or schedule is None or not schedule.active:
        return
    parameters = deployment.parameters | schedule.parameters
    key = f"{deployment.id} {hash_objects(parameters)} after {summary.last_modified}"
    with get_client(sync_client=True) as client:
        for waiting in read_followers(client, flow_run, when):
            its = find_schedule(waiting, deployment.schedules)
            if its and deployment.parameters | its.parameters == parameters:
                return
        for attempt in range(ATTEMPTS):
            following = client.create_flow_run_from_deployment(
                deployment.id,
                parameters=parameters,
                state=Scheduled(scheduled_time=when),
                tags=[TAG],
                labels={SCHEDULE_LABEL: f"{schedule.id} {schedule.slug or ''}"},
                idempotency_key=f"{key}, {attempt}",
            )
            # The key may return a run that was cancelled because this one still held the concurrency slot, or this
            # run itself, if it found nothing newer.
            if following.id != flow_run.id and not (following.state and following.state.is_final()):
                return
    raise RuntimeError(f"this snapshot already has {ATTEMPTS} followers")


def read_followers(client: SyncPrefectClient, flow_run: FlowRun, when: datetime) -> list[FlowRun]:
    """Return the deployment's followers that have not started, but will by `when`.

    Ignore any that are later than `MAX_AHEAD`: their worker may be gone.
    """
    bounds = {"after_": datetime.now(UTC) - MAX_AHEAD, "before_": when + timedelta(seconds=JITTER_SECONDS[1])}
    criteria = {
        "deployment_id": {"any_": [flow_run.deployment_id]},
        "tags": {"all_": [TAG]},
        "state": {"type": {"any_": ["SCHEDULED", "PENDING"]}},
        "expected_start_time": bounds,
        "id": {"not_any_": [flow_run.id]},
    }
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(criteria))


def next_start(expires: datetime | None, now: datetime, most_ahead: timedelta = MAX_AHEAD) -> datetime | None:
    """Return a random time shortly after `expires`; None if `expires` is past or too far ahead.

    It may have passed up to `MOMENT` ago, while a run that came too early was ending. The jitter keeps regions that
    change together from sending their requests together.
    """
    if expires is None or not now - MOMENT < expires or expires - now >= most_ahead:
        return None
    return max(expires, now) + timedelta(seconds=random.uniform(*JITTER_SECONDS))  # noqa: S311 (spreads runs)
