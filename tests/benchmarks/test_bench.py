"""The benchmark's contestants make the same table, and what is said of them comes from what was measured."""

import importlib
from datetime import UTC, datetime

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from benchmarks.cases import (
    FLOW,
    FORGE,
    IDIOMATIC,
    NO_TASKS,
    NO_WORK,
    PLAIN,
    QUIET,
    SIZES,
    UNSEEN,
    Case,
    Result,
    Results,
    full_cases,
)
from benchmarks.cpu_profile import Profile, profile_cpu
from benchmarks.goals import judge_goals
from benchmarks.measure import Measure, measure_run
from benchmarks.play import markets_of
from benchmarks.report import write_report
from benchmarks.states import Times, to_spans
from benchmarks.tables import Records, Tables, WrongTableError, check, true_records
from deployments.local.market.market import Market
from tests.support.tables import scan

REGION_ID = 10000003  # one page


@pytest.fixture
def truth(market: Market) -> Records:
    """The records of the snapshot that is served."""
    return true_records(REGION_ID, market.index)


@pytest.mark.usefixtures("served", "api")
@pytest.mark.parametrize("contestant", [PLAIN, FLOW, QUIET, UNSEEN, IDIOMATIC])
def test_contestant_makes_the_true_table(contestant: str, store_url: str, truth: Records) -> None:
    """Each contestant's table is what the market's orders say."""
    tables = Tables(store_url)
    with tables.table() as name:
        importlib.import_module(f"benchmarks.{contestant}").run(REGION_ID, name, 5)
        check(tables.read(name), truth)


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("contestant", [NO_TASKS, NO_WORK])
def test_floor_runs(contestant: str) -> None:
    """The flows that do nothing run without a market or a table."""
    importlib.import_module(f"benchmarks.{contestant}").run(REGION_ID, "", 5)


def test_wrong_table_is_told(store_url: str, truth: Records, dynamodb: DynamoDBClient) -> None:
    """A table that lacks a record is refused, with the record."""
    items = [
        {"pk": {"S": pk}, "price": {"N": str(record.price)}, "volume": {"N": str(record.volume)}}
        for pk, record in truth.items()
    ]
    with Tables(store_url).table(items) as name:
        check(list(scan(dynamodb, name).values()), truth)
    with pytest.raises(WrongTableError, match=f"1 of {len(truth)} records are wrong"):
        check(items[1:], truth)


def take_memory() -> None:
    """Compute over 64 MiB."""
    sum(bytearray(64 * 1024**2))


def test_run_is_measured() -> None:
    """A run that computes and takes memory shows in all figures, and in the profile."""
    measure = measure_run(take_memory, is_profiled=True)
    assert 0 < measure.cpu_seconds <= measure.seconds * 2
    assert measure.peak_bytes
    assert 60 * 1024**2 < measure.peak_bytes < 200 * 1024**2
    assert measure.profile
    assert sum(measure.profile.packages.values()) == pytest.approx(sum(measure.profile.steps.values()))


def test_cases_have_markets() -> None:
    """Each case has a name of its own, and its region is ready in the market that it sees."""
    cases = full_cases()
    named = {(case.name, contestant) for case in cases for contestant in case.contestants}
    assert len(named) == sum(len(case.contestants) for case in cases)
    assert {market.latency_ms for market in markets_of(cases)} == {0, 50, 200}


def test_states_are_put_together() -> None:
    """The mapped task runs of a state are one span, in seconds after the flow run's start."""
    runs = [Times("Fetch Pages", 11.0, 12.0), Times("Fetch Pages", 11.5, 13.0), Times("Get Page Count", 10.5, 11.0)]
    spans = to_spans(runs, Times("market-data", 10.0, 14.0))
    assert [(span.state, span.task_runs, span.begun, span.ended) for span in spans] == [
        ("Get Page Count", 1, 0.5, 1.0),
        ("Fetch Pages", 2, 1.0, 3.0),
        ("flow run", 1, 0.0, 4.0),
    ]


def made_up_results() -> Results:
    """Return results in which the flow takes twice the plain script's time, memory and CPU."""
    results = Results(datetime.now(UTC), {"memory": "1 GiB"}, {"prefect": "3"}, orders=dict.fromkeys(SIZES, 1))
    for case in full_cases():
        for contestant in case.contestants:
            times = 1 if contestant == PLAIN else 2
            measure = Measure(times * case.pages / 100, times * case.pages / 100, times * case.pages)
            results.results.append(Result(case, contestant, [measure] * 3))
    results.deployments = {NO_TASKS: [3.0], FLOW: [20.0]}
    with profile_cpu() as profile:
        sum(range(1000))
    results.profiles = {PLAIN: profile, FLOW: Profile(packages={"httpx": 1.0})}
    results.spans = {Case("first fill", FORGE).name: to_spans([], Times("market-data", 1.0, 2.0))}
    return results


def test_report_has_every_goal_and_case() -> None:
    """All goals are judged, all cases have a row, and what is not met is said to be so."""
    results = made_up_results()
    goals = {goal.case: goal for goal in judge_goals(results)}
    assert len(goals) == 14
    assert goals["433 pages, first fill"].measured == "2.00 × (8.66 s, plain 4.33 s)"
    assert not goals["433 pages, first fill"].is_met
    assert goals["50 to 1,686 pages"].is_met
    report = write_report(results, "images")
    assert report.count("**no**") == sum(not goal.is_met for goal in goals.values())
    for case in full_cases():
        assert case.is_slow or f"| {case.name} |" in report
    assert "| `httpx` | 0 | 1000 |" in report
