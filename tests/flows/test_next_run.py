"""When the next run is, after ESI's `Expires`, and with which parameters, on a real Prefect server."""

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

from deployments.local.market.market import Market
from flows.market_data import market_data
from flows.next_run import JITTER_SECONDS, MAX_AHEAD, MOMENT, TAG, follow_esi, next_start
from flows.player_count import player_count
from flows.universe import universe
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


OTHER = 10000006


def followers(api: Api, deployment_id: str) -> list[FlowRun]:
    """Return the runs of a deployment that are to follow another."""
    return find_runs(api, deployment_id, tags={"all_": [TAG]}, state={"type": {"any_": ["SCHEDULED"]}})


def start(api: Api, run: FlowRun, flow: Flow[..., Any] = market_data) -> State[Any]:
    """Run a deployment's run in this process, whenever it is due, and return its last state."""
    ask(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": "PENDING"}, "force": True})  # as a worker does
    state: State[Any] = run_flow(flow, flow_run=read_run(api, run), return_type="state")  # type: ignore[assignment]
    return state


def cancel(api: Api, run: FlowRun) -> None:
    """Cancel a run."""
    ask(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": "CANCELLED"}, "force": True})


def summary(expires: datetime, last_modified: datetime = NOW) -> Summary:
    """Return a summary that says no more than which snapshot it is of, and when that expires."""
    return Summary.model_construct(
        region_id=OTHER, table_name="MarketData", last_modified=last_modified, expires=expires
    )


def soon() -> datetime:
    """Return when a snapshot may expire."""
    return datetime.now(UTC) + timedelta(seconds=200)


def test_run_is_followed_once(api: Api) -> None:
    """A snapshot's run is followed by one, after `Expires`, though two that found it differ by microseconds in that."""
    deployment_id = deploy(api, {"region_id": OTHER}, schedule())
    expires = soon()
    (run,) = scheduled_runs(api, deployment_id)
    follow_esi(run, summary(expires))
    other = make_run(api, deployment_id, [TAG])
    follow_esi(other, summary(expires + timedelta(microseconds=3)))
    (found,) = [found for found in followers(api, deployment_id) if found.id != other.id]
    assert found.expected_start_time
    assert JITTER_SECONDS[0] <= found.expected_start_time.timestamp() - expires.timestamp() <= JITTER_SECONDS[1]
    assert found.parameters == {"region_id": OTHER}


def test_cancelled_follower_is_replaced(api: Api) -> None:
    """If the run that was to follow has been cancelled meanwhile, another follows, and no third."""
    deployment_id = deploy(api, {}, schedule())
    (run,) = scheduled_runs(api, deployment_id)
    expires = soon()
    follow_esi(run, summary(expires))
    (first,) = followers(api, deployment_id)
    cancel(api, first)
    follow_esi(run, summary(expires))
    follow_esi(run, summary(expires))
    (second,) = followers(api, deployment_id)
    assert second.id != first.id


@pytest.mark.parametrize(
    ("schedules", "tags"),
    [([], [TAG]), ([schedule(active=False)], [TAG]), ([schedule()], [])],
    ids=["no schedule", "schedule is off", "by hand"],
)
def test_run_is_not_followed(api: Api, schedules: list[dict[str, Any]], tags: list[str]) -> None:
    """A run by hand, and one whose schedule has been switched off, are followed by none."""
    deployment_id = deploy(api, {}, *schedules)
    run = make_run(api, deployment_id, tags)
    follow_esi(run, summary(soon()))
    assert [found for found in followers(api, deployment_id) if found.id != run.id] == []


@pytest.mark.usefixtures("served", "store_url")
def test_redeployed_parameters_are_used(
    api: Api, market: Market, clock: Clock, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """A run that follows uses, and shows, what was deployed after it was created; no second chain of runs begins."""
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
    """A run that follows and finds nothing newer is followed again, for the same snapshot."""
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
    """Of two runs that follow, as an earlier version may have left them, one goes on."""
    deployment_id = deploy(api, {"region_id": OTHER, "table_name": table_name}, schedule())
    for waiting in [make_run(api, deployment_id, [TAG], table_name=f"{table_name}-old") for _ in range(2)]:
        assert start(api, waiting).is_completed()
    assert len(followers(api, deployment_id)) == 1


@pytest.mark.usefixtures("served", "store_url")
@pytest.mark.parametrize("slugs", [(None, None), ("a", "b")], ids=["without slugs", "with slugs"])
def test_schedules_of_two_regions_have_a_chain_each(
    api: Api, dynamodb: DynamoDBClient, market: Market, table_name: str, slugs: tuple[str | None, str | None]
) -> None:
    """Two schedules with parameters of their own are followed each, and stay what they are when deployed again."""
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
    """Two schedules that differ in their times alone, such as for day and night, are followed by one run."""
    deployment_id = deploy(api, {"region_id": OTHER, "table_name": table_name}, schedule(slug="a"), schedule(slug="b"))
    runs = scheduled_runs(api, deployment_id)
    assert len(runs) == 2
    for run in runs:
        start(api, run)
    assert len(followers(api, deployment_id)) == 1


@pytest.mark.usefixtures("served", "store_url")
@pytest.mark.parametrize("ended", ["paused", "switched off", "without schedule", "deleted"])
def test_run_whose_deployment_has_ended_is_cancelled(api: Api, market: Market, table_name: str, ended: str) -> None:
    """A run that was to follow asks ESI nothing if its deployment is no longer scheduled by then."""
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
    """A run by hand keeps what it was given, is not followed, and does not ask what is deployed."""
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
    """A scheduled run that is retried, even with the deployment paused, counts as scheduled."""
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
    """A wrong parameter that was deployed since is refused as any other, before a request."""
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
        (universe, {"region_ids": [10000003]}, {"region_ids": [OTHER]}),
    ],
)
def test_other_flows_use_what_was_deployed(
    api: Api, dynamodb: DynamoDBClient, table_name: str, flow: Flow[..., Any], old: dict[str, Any], new: dict[str, Any]
) -> None:
    """Scheduled runs of the other flows use what is deployed, too, and are not followed."""
    tables = [f"{table_name}-A", f"{table_name}-B"]
    given = [parameters | {"table_name": table} for parameters, table in zip((old, new), tables, strict=True)]
    deployment_id = deploy(api, given[0], schedule(), flow=flow.name)
    (run,) = scheduled_runs(api, deployment_id)
    ask(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": "PENDING"}, "force": True})
    change = {"parameters": given[1]}
    httpx.patch(f"{api.url}/deployments/{deployment_id}", json=change, trust_env=False).raise_for_status()
    assert start(api, run, flow).is_completed()
    assert read_run(api, run).parameters == given[1]
    assert scan(dynamodb, tables[1])
    assert tables[0] not in dynamodb.list_tables()["TableNames"]
    assert not followers(api, deployment_id)


@pytest.mark.usefixtures("served", "store_url")
def test_run_goes_on_if_its_deployment_cannot_be_read(
    api: Api, dynamodb: DynamoDBClient, market: Market, table_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A run whose deployment the server does not give it keeps its parameters, and says so."""
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
