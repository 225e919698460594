"""When a deployment runs next: a few seconds after ESI has something new, with its schedule as the safety net.

A schedule fires at a phase of its own, on average half an interval after ESI's data have changed.
"""

import random
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Scheduled

from tasks.summary import Summary

TAG = "follows-esi"
JITTER_SECONDS = (2.0, 8.0)  # after `Expires`: ESI's makers would rather not see everyone come at once
MOMENT = timedelta(seconds=15)
ATTEMPTS = 3  # of a run that is to follow, for one `Expires`
MAX_AHEAD = timedelta(minutes=15)  # ESI's data change every five; the schedule does for what changes less often


def follow_esi(flow_run: FlowRun, summary: Summary) -> None:
    """Schedules the deployment's next run for when ESI's `Expires` has passed, once however often it is called.

    A run by hand is followed by none, nor one whose deployment has no schedule that is on.
    """
    if not flow_run.deployment_id or not (flow_run.auto_scheduled or TAG in flow_run.tags):
        return
    when = next_start(summary.expires, datetime.now(UTC))
    if when is None:
        return
    with get_client(sync_client=True) as client:
        if not is_scheduled(client, flow_run):
            return
        for attempt in range(ATTEMPTS):
            following = client.create_flow_run_from_deployment(
                flow_run.deployment_id,
                parameters=flow_run.parameters,
                state=Scheduled(scheduled_time=when),
                tags=[TAG],
                idempotency_key=f"{flow_run.deployment_id} after {summary.expires}, {attempt}",
            )
            # A worker takes a run ten seconds ahead: if this one was still going it has been cancelled by then.
            if following.state is None or not following.state.is_final():
                return


def next_start(expires: datetime | None, now: datetime) -> datetime | None:
    """Gives a time shortly after `expires`, never before it; None if that has long passed, or is too far away.

    One that has passed a moment ago has done so while the run ended that found that it had come too early.
    Each call draws its own, so that regions that change at the same time do not all ask at the same time.
    """
    if expires is None or not now - MOMENT < expires < now + MAX_AHEAD:
        return None
    return max(expires, now) + timedelta(seconds=random.uniform(*JITTER_SECONDS))  # noqa: S311 (spreads runs)


def is_scheduled(client: SyncPrefectClient, flow_run: FlowRun) -> bool:
    """Tells whether the deployment of a run has a schedule that is on."""
    assert flow_run.deployment_id
    deployment = client.read_deployment(flow_run.deployment_id)
    return not deployment.paused and any(schedule.active for schedule in deployment.schedules)
