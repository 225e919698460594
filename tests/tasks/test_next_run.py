"""When the next run is: after ESI's `Expires`, on a real Prefect server."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.objects import FlowRun

from benchmarks.freshness import measure
from deployments.local.api import Api
from tasks.next_run import JITTER_SECONDS, MAX_AHEAD, MOMENT, TAG, follow_esi, next_start
from tasks.summary import Summary
from tests.flows.test_sight import ask

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@given(st.floats(-1e6, 1e6) | st.floats(-30, 30))
def test_next_start_is_never_before_expires(ahead_seconds: float) -> None:
    """The next run is a few seconds after `Expires`; one that has long passed, or is far away, is not followed."""
    expires = NOW + timedelta(seconds=ahead_seconds)
    when = next_start(expires, NOW)
    if NOW - MOMENT < expires < NOW + MAX_AHEAD:
        assert when
        assert JITTER_SECONDS[0] <= (when - max(expires, NOW)).total_seconds() <= JITTER_SECONDS[1]
    else:
        assert when is None


def test_regions_do_not_all_ask_at_once() -> None:
    """Of a hundred regions that change together, no second sees more than half."""
    drawn = [next_start(NOW + timedelta(seconds=300), NOW) for _ in range(100)]
    seconds = [int((when - NOW).total_seconds()) for when in drawn if when]
    assert len(seconds) == 100
    assert max(seconds.count(second) for second in set(seconds)) < 50


@pytest.mark.parametrize("phase_seconds", [0, 97, 294, 299])
def test_day_of_following_is_fresh(phase_seconds: int) -> None:
    """Through a day a reader finds data that are 170 s old in the mean and 330 s at most: 150 and 300 is the floor.

    Wherever the fixed times of the safety net are, even where they come just before ESI's data change.
    """
    freshness = measure(phase_seconds, follows=True)
    assert freshness.mean_seconds <= 170
    assert freshness.worst_seconds <= 330


def deploy(api: Api, *, scheduled: bool) -> str:
    """Makes a deployment, whose schedule is on or not, and gives its id."""
    flow = ask(api, "/flows/", {"name": "market-data"})
    schedules = [{"schedule": {"interval": 86_400, "anchor_date": "2026-01-01T00:00:00+00:00"}, "active": scheduled}]
    body = {"name": str(uuid.uuid4()), "flow_id": flow["id"], "schedules": schedules}
    return str(ask(api, "/deployments/", body)["id"])


def make_run(api: Api, deployment_id: str, tags: list[str]) -> FlowRun:
    """Makes a run of a deployment."""
    path = f"/deployments/{deployment_id}/create_flow_run"
    return FlowRun.model_validate(ask(api, path, {"parameters": {"region_id": 10000003}, "tags": tags}))


def following(api: Api, deployment_id: str) -> list[dict[str, Any]]:
    """Gives the runs of a deployment that are to follow another."""
    wanted = {
        "deployments": {"id": {"any_": [deployment_id]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    return [run for run in ask(api, "/flow_runs/filter", wanted) if run["parameters"] and TAG in run["tags"]]


def summary(expires: datetime) -> Summary:
    """Gives a summary that says no more than when its snapshot expires."""
    return Summary.model_construct(expires=expires)


def test_run_is_followed_once(api: Api) -> None:
    """A scheduled run is followed by one, with its parameters, after `Expires`; a second of that time by no other."""
    deployment_id = deploy(api, scheduled=True)
    expires = datetime.now(UTC) + timedelta(seconds=200)
    run = make_run(api, deployment_id, [TAG])
    follow_esi(run, summary(expires))
    follow_esi(run.model_copy(update={"tags": [], "auto_scheduled": True}), summary(expires))
    (found,) = [found for found in following(api, deployment_id) if found["id"] != str(run.id)]
    when = datetime.fromisoformat(found["expected_start_time"])
    assert JITTER_SECONDS[0] <= (when - expires).total_seconds() <= JITTER_SECONDS[1]
    assert found["parameters"] == {"region_id": 10000003}


def test_cancelled_follower_is_replaced(api: Api) -> None:
    """If the run that was to follow has been cancelled meanwhile, another follows, and no third."""
    deployment_id = deploy(api, scheduled=True)
    expires = datetime.now(UTC) + timedelta(seconds=200)
    run = make_run(api, deployment_id, [TAG])
    follow_esi(run, summary(expires))
    (first,) = [found for found in following(api, deployment_id) if found["id"] != str(run.id)]
    ask(api, f"/flow_runs/{first['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    follow_esi(run, summary(expires))
    follow_esi(run, summary(expires))
    (second,) = [found for found in following(api, deployment_id) if found["id"] != str(run.id)]
    assert second["id"] != first["id"]


@pytest.mark.parametrize(("scheduled", "tags"), [(False, [TAG]), (True, [])], ids=["no schedule", "by hand"])
def test_run_is_not_followed(api: Api, tags: list[str], *, scheduled: bool) -> None:
    """A run by hand, and one whose schedule has been switched off, are followed by none."""
    deployment_id = deploy(api, scheduled=scheduled)
    run = make_run(api, deployment_id, tags)
    follow_esi(run, summary(datetime.now(UTC) + timedelta(seconds=200)))
    assert [found for found in following(api, deployment_id) if found["id"] != str(run.id)] == []
