"""When a deployment runs next, and with which parameters.

A schedule fires at a phase of its own, on average half an interval after ESI's data have changed. So each scheduled run
creates the next one for a few seconds after ESI has something new, and the schedule is the safety net. Both kinds have
the parameters that their deployment has when they start; parameters given by hand for one run stay that run's.
"""

import random
from collections.abc import Sequence
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
from prefect.utilities.hashing import hash_objects

from tasks.catalogue.names import region_name
from tasks.reporting.outcome import read_outcome
from tasks.reporting.reporter import report_afterwards
from tasks.reporting.summary import Summary

TAG = "follows-esi"
SCHEDULE_LABEL = "market-data.schedule"  # of a run that follows another: the id of their schedule, and its slug
JITTER_SECONDS = (2.0, 8.0)  # after `Expires`: ESI's makers would rather not see everyone come at once
MOMENT = timedelta(seconds=15)
ATTEMPTS = 10  # of a run that is to follow, for one snapshot: the last may have been cancelled, or have come too early
MAX_AHEAD = timedelta(minutes=15)  # ESI's data change every five; the schedule does for what changes less often

P = ParamSpec("P")
R = TypeVar("R")


def as_deployed(flow: Flow[P, R]) -> Flow[P, R]:
    """Make a flow's scheduled runs use the parameters that their deployment has when they start.

    A run that follows another is cancelled instead if its deployment is no longer scheduled. A retry, which somebody
    asked for, never is.
    """
    body = flow.fn

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None or not is_scheduled(context.flow_run):
            return body(*args, **kwargs)
        flow_run = context.flow_run
        try:
            deployment = read_deployment(flow_run)
        except (PrefectHTTPStatusError, httpx.HTTPError) as error:
            get_run_logger().warning(
                "the deployment could not be read, so this run keeps the parameters that it was created with: %s: %s",
                type(error).__name__,
                error,
            )
            return body(*args, **kwargs)
        schedule = find_schedule(flow_run, deployment.schedules) if deployment else None
        if TAG in flow_run.tags and flow_run.run_count <= 1 and not is_on(deployment, schedule):
            return cast("R", Cancelled(message="The deployment was deleted or paused, or its schedule switched off."))
        if deployment is None:
            get_run_logger().warning("the deployment of this run is gone: it keeps the parameters it was created with")
            return body(*args, **kwargs)
        parameters = deployment.parameters | (schedule.parameters if schedule else {})
        if parameters == flow_run.parameters:
            return body(*args, **kwargs)
        get_run_logger().info("the deployment was changed after this run was created: using its parameters of now")
        context.parameters = flow_run.parameters = parameters  # for the hooks, too
        report_afterwards(record_parameters, flow_run)
        return body(**flow.validate_parameters(parameters))  # type: ignore[call-arg] # ParamSpec knows no names

    flow.fn = run
    return flow


def is_scheduled(flow_run: FlowRun) -> bool:
    """Return whether a run was made by a schedule of its deployment, or follows one that was."""
    return bool(flow_run.deployment_id) and (flow_run.auto_scheduled or TAG in flow_run.tags)


def read_deployment(flow_run: FlowRun) -> DeploymentResponse | None:
    """Return the deployment of a run as it is now, None if it was deleted.

    Raises:
        PrefectHTTPStatusError: the server kept refusing.
        httpx.HTTPError: the server could not be reached.
    """
    assert flow_run.deployment_id
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment(flow_run.deployment_id)
        except ObjectNotFound:
            return None


def find_schedule(flow_run: FlowRun, schedules: Sequence[DeploymentSchedule]) -> DeploymentSchedule | None:
    """Return the schedule that made a run, or the one that it follows; None if it is gone.

    A redeployment gives schedules new ids. Then it is the one with the same slug, or the one whose own parameters the
    run has, or the only one.
    """
    maker = flow_run.created_by
    made_by = f"{maker.id} {maker.display_value}" if maker and maker.type == "SCHEDULE" else ""
    schedule_id, _, slug = str(flow_run.labels.get(SCHEDULE_LABEL, made_by)).partition(" ")
    same_id = [schedule for schedule in schedules if str(schedule.id) == schedule_id]
    same_slug = [schedule for schedule in schedules if slug and schedule.slug == slug]
    fitting = [schedule for schedule in schedules if schedule.parameters.items() <= flow_run.parameters.items()]
    fitting.sort(key=lambda schedule: (-len(schedule.parameters), not schedule.active))
    found = same_id or same_slug or fitting or (schedules if len(schedules) == 1 else [])
    return found[0] if found else None


def is_on(deployment: DeploymentResponse | None, schedule: DeploymentSchedule | None) -> bool:
    """Return whether a deployment makes runs by a schedule."""
    return deployment is not None and not deployment.paused and schedule is not None and schedule.active


def record_parameters(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    """Show in Prefect the parameters that a run has now."""
    client.update_flow_run(flow_run.id, parameters=flow_run.parameters)


def schedule_next(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's)
    """Follow a run that has ended well."""
    follow_esi(flow_run, read_outcome().summary)


def follow_esi(flow_run: FlowRun, summary: Summary) -> None:
    """Schedule the deployment's next run for when ESI's `Expires` has passed, once however many runs ask for it.

    Manual runs, and deployments without an active schedule, are not followed. If it fails, the run's log and the event
    `market.follow.failed` say so; the deployment then runs next when its schedule says.
    """
    when = next_start(summary.expires, datetime.now(UTC))
    if when is None or not is_scheduled(flow_run):
        return
    try:
        create_follower(flow_run, summary, when)
    except Exception as error:  # noqa: BLE001 (whatever it is, this run has ended well)
        reason = f"no run could be scheduled for {when:%Y-%m-%d %H:%M:%S} UTC: {type(error).__name__}: {error}"
        get_run_logger().error("%s; the next run is the one that the deployment's schedule makes", reason)
        resource = {
            "prefect.resource.id": f"market.region.{summary.region_id}",
            "prefect.resource.name": region_name(summary.region_id),
        }
        emit_event("market.follow.failed", resource, payload={"reason": reason, "table_name": summary.table_name})


def create_follower(flow_run: FlowRun, summary: Summary, when: datetime) -> None:
    """Create the run that follows another, unless there is one already.

    One with the same parameters as of now is enough, whichever run it follows: so chains of runs become one. Two runs
    that ask at the same time get the same one by its key.
    """
    deployment = read_deployment(flow_run)
    schedule = find_schedule(flow_run, deployment.schedules) if deployment else None
    if deployment is None or schedule is None or not is_on(deployment, schedule):
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
            # A worker takes a run ten seconds ahead: if this one was still going, the other was cancelled by then. Or
            # this one is that other, and ESI had nothing newer yet.
            if following.id != flow_run.id and not (following.state and following.state.is_final()):
                return
    raise RuntimeError(f"{ATTEMPTS} runs have followed this snapshot already")


def read_followers(client: SyncPrefectClient, flow_run: FlowRun, when: datetime) -> list[FlowRun]:
    """Return the runs of the same deployment that follow another and have not begun, though they will by `when`.

    One that is later than `MAX_AHEAD` is not waited for: its worker may be gone.
    """
    bounds = {"after_": datetime.now(UTC) - MAX_AHEAD, "before_": when + timedelta(seconds=JITTER_SECONDS[1])}
    wanted = {
        "deployment_id": {"any_": [flow_run.deployment_id]},
        "tags": {"all_": [TAG]},
        "state": {"type": {"any_": ["SCHEDULED", "PENDING"]}},
        "expected_start_time": bounds,
        "id": {"not_any_": [flow_run.id]},
    }
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))


def next_start(expires: datetime | None, now: datetime) -> datetime | None:
    """Return a time shortly after `expires`, never before it; None if that has long passed, or is too far away.

    One that has passed a moment ago has done so while the run ended that found that it had come too early.
    Each call draws its own, so that regions that change at the same time do not all ask at the same time.
    """
    if expires is None or not now - MOMENT < expires < now + MAX_AHEAD:
        return None
    return max(expires, now) + timedelta(seconds=random.uniform(*JITTER_SECONDS))  # noqa: S311 (spreads runs)
