"""When the next run starts after ESI's `Expires`, and with which parameters, on a real Prefect server."""

import logging
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient
from prefect import Flow, State
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed

from deployments.local.market.market import Market
from flows.market_data import market_data
from flows.next_run import JITTER_SECONDS, MAX_AHEAD, MOMENT, TAG, next_start, schedule_next
from flows.player_count import player_count
from flows.universe import universe
from tasks.reporting.outcome import Outcome, outcome
from tasks.reporting.summary import Summary
from tests.support.api import Api
from tests.support.faults.server import serve_changed
from tests.support.freshness import measure
from tests.support.runs import ask, deploy, find_runs, make_run, read_run, schedule, scheduled_runs
from tests.support.tables import expire, records, scan
from tests.support.truth import truth
from tests.support.worlds import Clock

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@given(st.floats(-1e6, 1e6) | st.floats(-30, 30))
def test_next_start_is_never_before_expires(ahead_seconds: float) -> None:
    """The next run starts a few seconds after `Expires`, unless that is long past or far ahead."""
    expires = NOW + timedelta(seconds=ahead_seconds)
    when = next_start(expires, NOW)
    if NOW - MOMENT < expires < NOW + MAX_AHEAD:
        assert when
        assert JITTER_SECONDS[0] <= (when - max(expires, NOW)).total_seconds() <= JITTER_SECONDS[1]
    else:
        assert when is None


def test_regions_do_not_all_ask_at_once() -> None:
    """Of a hundred regions that change together, no more than half start in the same second."""
    drawn = [next_start(NOW + timedelta(seconds=300), NOW) for _ in range(100)]
    seconds = [int((when - NOW).total_seconds()) for when in drawn if when]
    assert len(seconds) == 100
    assert max(seconds.count(second) for second in set(seconds)) < 50


@pytest.mark.parametrize("phase_seconds", [0, 97, 294, 299])
def test_day_of_following_is_fresh(phase_seconds: int) -> None:
    """Over a day, a reader sees data 170 s old on average and 330 s at most; 150 and 300 are the minimum.

    This holds for any offset of the fixed schedule, even just before ESI's data change.
    """
    freshness = measure(phase_seconds, follows=True)
    assert freshness.mean_seconds <= 170
    assert freshness.worst_seconds <= 330


OTHER = 10000006


def followers(api: Api, deployment_id: str) -> list[FlowRun]:
    """Return the scheduled runs of a deployment that follow another run."""
    return find_runs(api, deployment_id, tags={"all_": [TAG]}, state={"type": {"any_": ["SCHEDULED"]}})


def start(api: Api, run: FlowRun, flow: Flow[..., Any] = market_data) -> State[Any]:
    """Execute a deployment's run in this process, whenever it is due, and return its final state."""
    ask(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": "PENDING"}, "force": True})  # as a worker does
    state: State[Any] = run_flow(flow, flow_run=read_run(api, run), return_type="state")  # type: ignore[assignment]
    return state


def cancel(api: Api, run: FlowRun) -> None:
    """Cancel a run."""
    ask(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": "CANCELLED"}, "force": True})


def summary(expires: datetime, last_modified: datetime = NOW) -> Summary:
    """Return a summary with a given snapshot and expiry."""
    return Summary.model_construct(
        region_id=OTHER, table_name="MarketData", last_modified=last_modified, expires=expires
    )


def follow(run: FlowRun, summary: Summary) -> None:
    """Call the hook of a run that has completed with a summary."""
    outcome.set(Outcome(summary, [summary], []))
    schedule_next(market_data, run, Completed())


def soon() -> datetime:
    """Return a plausible time for a snapshot to expire."""
    return datetime.now(UTC) + timedelta(seconds=200)


def test_run_is_followed_once(api: Api) -> None:
    """One run follows per snapshot, even if two runs computed its `Expires` with microseconds' difference."""
    deployment_id = deploy(api, {"region_id": OTHER}, schedule())
    expires = soon()
    (run,) = scheduled_runs(api, deployment_id)
    follow(run, summary(expires))
    other = make_run(api, deployment_id, [TAG])
    follow(other, summary(expires + timedelta(microseconds=3)))
    (found,) = [found for found in followers(api, deployment_id) if found.id != other.id]
    assert found.expected_start_time
    assert JITTER_SECONDS[0] <= found.expected_start_time.timestamp() - expires.timestamp() <= JITTER_SECONDS[1]
    assert found.parameters == {"region_id": OTHER}


def test_cancelled_follower_is_replaced(api: Api) -> None:
    """If the following run was cancelled, one other run replaces it."""
    deployment_id = deploy(api, {}, schedule())
    (run,) = scheduled_runs(api, deployment_id)
    expires = soon()
    follow(run, summary(expires))
    (first,) = followers(api, deployment_id)
    cancel(api, first)
    follow(run, summary(expires))
    follow(run, summary(expires))
    (second,) = followers(api, deployment_id)
    assert second.id != first.id


@pytest.mark.parametrize(
    ("schedules", "tags"),
    [([], [TAG]), ([schedule(active=False)], [TAG]), ([schedule()], [])],
    ids=["no schedule", "schedule is off", "by hand"],
)
def test_run_is_not_followed(api: Api, schedules: list[dict[str, Any]], tags: list[str]) -> None:
    """Manual runs, and runs whose schedule has been switched off, are not followed."""
    deployment_id = deploy(api, {}, *schedules)
    run = make_run(api, deployment_id, tags)
    follow(run, summary(soon()))
    assert [found for found in followers(api, deployment_id) if found.id != run.id] == []


@pytest.mark.usefixtures("served", "store_url")
def test_redeployed_parameters_are_used(
    api: Api, market: Market, clock: Clock, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """A following run uses, and shows, parameters deployed after it was created, and no second chain starts."""
    elsewhere, name = f"{table_name}-elsewhere", str(uuid.uuid4())
    old = {"region_id": OTHER, "table_name": table_name, "price": "max"}
    new = {"region_id": OTHER, "table_name": elsewhere, "price": "median"}
    deployment_id = deploy(api, old, schedule(), name=name)
    (run,) = scheduled_runs(api, deployment_id)
    assert start(api, run).is_completed()
    before = scan(dynamodb, table_name)
    assert records(before) == truth(market, OTHER, price="max")
    assert deploy(api, new, schedule(), name=name) == deployment_id
    (late,) = scheduled_runs(api, deployment_id)
    assert start(api, late).is_completed()
    for _ in range(3):
        (follower,) = followers(api, deployment_id)
        clock.now += 300
        expire(dynamodb, elsewhere)
        assert start(api, follower).is_completed()
        assert read_run(api, follower).parameters == new
        assert records(scan(dynamodb, elsewhere)) == truth(market, OTHER, price="median")
    assert scan(dynamodb, table_name) == before
    assert len(followers(api, deployment_id)) == 1


@pytest.mark.usefixtures("served", "store_url")
def test_run_that_came_too_early_is_followed(api: Api, table_name: str) -> None:
    """If a following run finds no newer snapshot, another one follows for the same snapshot."""
    deployment_id = deploy(api, {"region_id": OTHER, "table_name": table_name}, schedule())
    (run,) = scheduled_runs(api, deployment_id)
    start(api, run)
    (early,) = followers(api, deployment_id)
    assert start(api, early).name == "NotModified"
    (again,) = followers(api, deployment_id)
    assert start(api, again).name == "NotModified"
    assert len(followers(api, deployment_id)) == 1


@pytest.mark.usefixtures("served", "store_url")
def test_two_chains_become_one(api: Api, table_name: str) -> None:
    """Of two following runs, as an earlier version may have left them, only one continues the chain."""
    deployment_id = deploy(api, {"region_id": OTHER, "table_name": table_name}, schedule())
    for waiting in [make_run(api, deployment_id, [TAG], table_name=f"{table_name}-old") for _ in range(2)]:
        assert start(api, waiting).is_completed()
    assert len(followers(api, deployment_id)) == 1


@pytest.mark.usefixtures("served", "store_url")
@pytest.mark.parametrize("slugs", [(None, None), ("a", "b")], ids=["without slugs", "with slugs"])
def test_schedules_of_two_regions_have_a_chain_each(
    api: Api, dynamodb: DynamoDBClient, market: Market, table_name: str, slugs: tuple[str | None, str | None]
) -> None:
    """Two schedules with different parameters have one chain each, which a new deploy does not change."""
    regions, name = {10000003, OTHER}, str(uuid.uuid4())
    schedules = [schedule(region_id=region, slug=slug) for region, slug in zip(sorted(regions), slugs, strict=True)]
    deployment_id = deploy(api, {"table_name": f"{table_name}-{{region_id}}"}, *schedules, name=name)
    for run in scheduled_runs(api, deployment_id):
        start(api, run)
    waiting = followers(api, deployment_id)
    assert {run.parameters["region_id"] for run in waiting} == regions
    deploy(api, {"table_name": f"New-{table_name}-{{region_id}}"}, *schedules, name=name)
    for run in waiting:
        assert start(api, run).is_completed()
    for region in regions:
        assert records(scan(dynamodb, f"New-{table_name}-{region}")) == truth(market, region)
    assert len(followers(api, deployment_id)) == 2


@pytest.mark.usefixtures("served", "store_url")
def test_schedules_with_the_same_parameters_are_one_chain(api: Api, table_name: str) -> None:
    """Two schedules that differ only in their times, such as day and night, share one chain."""
    deployment_id = deploy(api, {"region_id": OTHER, "table_name": table_name}, schedule(slug="a"), schedule(slug="b"))
    runs = scheduled_runs(api, deployment_id)
    assert len(runs) == 2
    for run in runs:
        start(api, run)
    assert len(followers(api, deployment_id)) == 1


@pytest.mark.usefixtures("served", "store_url")
@pytest.mark.parametrize("ended", ["paused", "switched off", "without schedule", "deleted"])
def test_run_whose_deployment_has_ended_is_cancelled(api: Api, market: Market, table_name: str, ended: str) -> None:
    """A following run sends ESI no request if its deployment is no longer scheduled."""
    name, parameters = str(uuid.uuid4()), {"region_id": OTHER, "table_name": table_name}
    deployment_id = deploy(api, parameters, schedule(), name=name)
    follower = make_run(api, deployment_id, [TAG])
    ask(api, f"/flow_runs/{follower.id}/set_state", {"state": {"type": "PENDING"}, "force": True})
    if ended == "paused":
        httpx.post(f"{api.url}/deployments/{deployment_id}/pause_deployment", trust_env=False).raise_for_status()
    elif ended == "deleted":
        httpx.delete(f"{api.url}/deployments/{deployment_id}", trust_env=False).raise_for_status()
    else:
        deploy(api, parameters, *([schedule(active=False)] if ended == "switched off" else []), name=name)
    state = start(api, follower)
    assert state.is_cancelled()
    assert "deleted or paused, or its schedule deactivated" in (state.message or "")
    assert read_run(api, follower).state_type == "CANCELLED"
    assert not market.requests


@pytest.mark.usefixtures("served", "store_url")
def test_parameters_given_by_hand_stay(api: Api, dynamodb: DynamoDBClient, market: Market, table_name: str) -> None:
    """A manual run keeps its parameters, is not followed, and does not read the deployment."""
    deployment_id = deploy(api, {"region_id": OTHER, "table_name": f"{table_name}-other"}, schedule())
    run = make_run(api, deployment_id, [], table_name=table_name, price="max")
    asked: list[str] = []

    def note(request: str, answer: httpx.Response) -> httpx.Response:
        asked.append(request)
        return answer

    with serve_changed(api.url, note):
        assert start(api, run).is_completed()
    assert records(scan(dynamodb, table_name)) == truth(market, OTHER, price="max")
    assert not followers(api, deployment_id)
    assert asked
    assert not [request for request in asked if "/deployments/" in request]


@pytest.mark.usefixtures("served", "store_url")
def test_retry_uses_what_was_deployed_since(
    api: Api, dynamodb: DynamoDBClient, market: Market, table_name: str
) -> None:
    """A retried scheduled run counts as scheduled, even if the deployment is paused."""
    deployment_id = deploy(api, {"region_id": 19999999, "table_name": table_name}, schedule())
    (run,) = scheduled_runs(api, deployment_id)
    assert start(api, run).is_failed()
    change = {"parameters": {"region_id": OTHER, "table_name": table_name}}
    httpx.patch(f"{api.url}/deployments/{deployment_id}", json=change, trust_env=False).raise_for_status()
    httpx.post(f"{api.url}/deployments/{deployment_id}/pause_deployment", trust_env=False).raise_for_status()
    assert start(api, run).is_completed()
    assert records(scan(dynamodb, table_name)) == truth(market, OTHER)
    assert "10000006" in read_run(api, run).name


@pytest.mark.usefixtures("served", "store_url")
def test_wrong_deployed_parameter_is_refused(api: Api, market: Market, table_name: str) -> None:
    """A wrong parameter that was deployed later is refused like any other, before any request."""
    deployment_id = deploy(api, {"region_id": OTHER, "table_name": table_name}, schedule())
    (run,) = scheduled_runs(api, deployment_id)
    ask(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": "PENDING"}, "force": True})
    change = {"parameters": {"region_id": OTHER, "table_name": table_name, "price": "dear"}}
    httpx.patch(f"{api.url}/deployments/{deployment_id}", json=change, trust_env=False).raise_for_status()
    state = start(api, run)
    assert state.is_failed()
    assert "'dear' is refused: give min, max, mean" in (state.message or "")
    assert not market.requests


@pytest.mark.usefixtures("served", "store_url")
@pytest.mark.parametrize(
    ("flow", "old", "new"),
    [
        (player_count, {"table_name": "A"}, {"table_name": "B"}),
        (universe, {"markets": {"10000003": [10000003]}}, {"markets": {str(OTHER): [OTHER]}}),
    ],
)
def test_other_flows_use_what_was_deployed(
    api: Api, dynamodb: DynamoDBClient, table_name: str, flow: Flow[..., Any], old: dict[str, Any], new: dict[str, Any]
) -> None:
    """Scheduled runs of the other flows also use the deployed parameters, and are not followed."""
    tables = [f"{table_name}-A", f"{table_name}-B"]
    given = [parameters | {"table_name": table} for parameters, table in zip((old, new), tables, strict=True)]
    deployment_id = deploy(api, given[0], schedule(), flow=flow.name)
    (run,) = scheduled_runs(api, deployment_id)
    ask(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": "PENDING"}, "force": True})
    change = {"parameters": given[1]}
    httpx.patch(f"{api.url}/deployments/{deployment_id}", json=change, trust_env=False).raise_for_status()
    assert start(api, run, flow).is_completed()
    assert read_run(api, run).parameters == given[1]
    assert read_run(api, run).name.startswith("1 region · ") == (flow is universe)  # by a default of `region_ids`
    assert scan(dynamodb, tables[1])
    assert tables[0] not in dynamodb.list_tables()["TableNames"]
    assert not followers(api, deployment_id)


@pytest.mark.usefixtures("served", "store_url")
def test_run_goes_on_if_its_deployment_cannot_be_read(
    api: Api, dynamodb: DynamoDBClient, market: Market, table_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that cannot read its deployment keeps its parameters, and logs that."""
    deployment_id = deploy(api, {"region_id": OTHER, "table_name": table_name}, schedule())
    (run,) = scheduled_runs(api, deployment_id)

    def refuse(request: str, answer: httpx.Response) -> httpx.Response:
        return httpx.Response(503) if request == f"GET /deployments/{deployment_id}" else answer

    with serve_changed(api.url, refuse), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert start(api, run).is_completed()
    assert records(scan(dynamodb, table_name)) == truth(market, OTHER)
    assert "this run keeps its parameters: PrefectHTTPStatusError" in caplog.text
    (error,) = [record for record in caplog.records if "no run could be scheduled" in record.message]
    assert error.levelno == logging.ERROR
    assert re.search(
        r"UTC: PrefectHTTPStatusError: .*; the next run is the deployment's next scheduled one", error.message
    )
