"""The benchmark's contestants make the same table, and what is said of them comes from what was measured."""

import importlib
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.client.schemas.objects import FlowRun, TaskRun

from benchmarks.cases import FLOW, FORGE, IDIOMATIC, NO_TASKS, NO_WORK, PLAIN, UNIVERSE, Case, Results, full_cases
from benchmarks.goals import judge_goals
from benchmarks.measure import measure_run
from benchmarks.play import call, markets_of
from benchmarks.recorded import list_states, read_run
from benchmarks.report import write_report
from benchmarks.tables import Items, Tables, WrongTableError, compare, to_records, true_items
from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from deployments.local.processes import free_port
from deployments.local.servers import Servers, answers
from tests.support.api import Api
from tests.support.tables import scan

REGION_ID = 10000003  # one page
START = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture
def truth(market: Market) -> Items:
    """The records of the snapshot that is served."""
    return true_items(REGION_ID, market.index)


@pytest.mark.usefixtures("served", "api")
@pytest.mark.parametrize("contestant", [PLAIN, FLOW, UNIVERSE, IDIOMATIC])
def test_contestant_makes_the_true_table(contestant: str, store_url: str, market: Market) -> None:
    """Each contestant's table is what the market's orders say."""
    tables = Tables(store_url)
    with tables.made({REGION_ID: {}}) as template:
        importlib.import_module(f"benchmarks.{contestant}").run([REGION_ID], template, 5)
        assert tables.check(template, [REGION_ID], market.index) > 20


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("contestant", [NO_TASKS, NO_WORK])
def test_floor_runs_and_its_end_is_recorded(contestant: str, api: Api) -> None:
    """The flows that do nothing run without a table, and Prefect's server says when they ended."""
    called_at = time.time()
    importlib.import_module(f"benchmarks.{contestant}").run([REGION_ID], "", 5)
    ended = read_run(api.url, contestant.replace("_", "-"), called_at).end_time
    assert ended
    assert called_at < ended.timestamp() < time.time()


def test_wrong_table_is_told(store_url: str, truth: Items, dynamodb: DynamoDBClient) -> None:
    """A table that lacks a record is refused, with the record."""
    with Tables(store_url).made({REGION_ID: truth}) as template:
        items = scan(dynamodb, template.format(region_id=REGION_ID))
    compare("T", to_records(items), truth, is_whole=True)
    with pytest.raises(WrongTableError, match=f"1 of {len(truth)} records are wrong"):
        compare("T", to_records(dict(list(items.items())[1:])), truth, is_whole=True)


def take_memory() -> None:
    """Compute over 64 MiB."""
    sum(bytearray(64 * 1024**2))


def test_run_is_measured() -> None:
    """A run that computes and takes memory shows in all figures."""
    figures = measure_run(take_memory)
    assert 0 < figures["CPU"] <= figures["seconds"] * 2
    assert 60 < figures["peak MiB"] < 200


def test_plain_script_does_without_prefect() -> None:
    """A process that measures the plain script imports neither Prefect nor, before the script does, pandas."""
    code = "import sys, benchmarks.measure; first = 'pandas' in sys.modules; import benchmarks.plain; "
    code += "print(first, 'pandas' in sys.modules, 'prefect' in sys.modules)"
    assert call([sys.executable, "-c", code], dict(os.environ)) == b"False True False\n"


def test_slow_api_takes_longer(api: Api, tmp_path: Path) -> None:
    """What goes through comes back whole, and each request so much later."""
    port, target = free_port(), str(httpx.URL(api.url).port)
    servers = Servers(tmp_path, os.environ)
    servers.start(
        "slow", [sys.executable, "-m", "benchmarks.slow_api", str(port), target, "0.3"], {"PWD": str(CHECKOUT)}
    )
    try:
        servers.wait_for("slow", lambda: answers(f"http://127.0.0.1:{port}/api/health"))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", trust_env=False) as http:
            started = time.monotonic()
            answer = http.post("/flows/filter", json={"flows": {"name": {"any_": ["x" * 200_000]}}})
            assert (answer.status_code, answer.json()) == (200, [])
            assert time.monotonic() - started >= 0.3
    finally:
        servers.stop()


def test_cases_have_markets() -> None:
    """Each case has a name of its own, and its region is ready in the market that it sees."""
    cases = full_cases()
    named = {(case.name, contestant) for case in cases for contestant in case.contestants}
    assert len(named) == sum(len(case.contestants) for case in cases)
    assert {market.latency_ms for market in markets_of(cases)} == {0, 50, 200}


def test_states_are_put_together() -> None:
    """The mapped task runs of a state are one span, in seconds after the flow run's start."""

    def times(name: str, start: float, end: float) -> dict[str, Any]:
        return {
            "name": name,
            "start_time": START + timedelta(seconds=start),
            "end_time": START + timedelta(seconds=end),
        }

    runs = [("Fetch Pages 1-55", 11.0, 12.0), ("Fetch Pages 56", 11.5, 13.0), ("Get Page Count", 10.5, 11.0)]
    ids = {"flow_run_id": uuid4(), "task_key": "", "dynamic_key": ""}
    task_runs = [TaskRun.model_validate(ids | times(*run)) for run in runs]
    flow_run = FlowRun.model_validate({"flow_id": uuid4()} | times("10000002 · 2026", 10.0, 14.0))
    assert list_states(task_runs, flow_run) == [
        ["Get Page Count", "1", "0.50", "1.00"],
        ["Fetch Pages", "2", "1.00", "3.00"],
        ["flow run", "1", "0.00", "4.00"],
    ]


def made_up_results() -> Results:
    """Return results in which the flows take twice the plain script's time, memory and CPU."""
    results = Results(START, {"memory": "1 GiB", "prefect": "3"})
    names = ("seconds", "returns", "warmed up", "CPU", "server CPU", "peak MiB", "HEADs")
    for case in full_cases():
        for contestant in case.contestants:
            times = 1 if contestant == PLAIN else 2
            figures = {name: [times * sum(map(len, [case.regions or range(case.pages)])) / 100] * 3 for name in names}
            results.measures.setdefault(case.name, {})[contestant] = figures
    results.states = {Case("first fill", FORGE).name: [["Get Page Count", "1", "0.10", "0.12"]]}
    return results


def test_report_has_every_goal_and_case() -> None:
    """All goals are judged, all cases have a row, and what is not met is said to be so."""
    results = made_up_results()
    goals = {case: row for case, *row in judge_goals(results)}
    assert len(goals) == 13
    measured = "2.00 × (8.66 s, plain 4.33 s; the call returns after 8.66 s)"
    assert goals["433 pages, first fill"] == ["≤ 1.00 × plain", measured, "**no**"]
    assert goals["7 pages, first fill"] == ["≤ plain script + 0.5 s", "+0.07 s (0.14 s, plain script 0.07 s)", "yes"]
    assert goals["113 regions, not modified: HEAD requests"] == ["≤ 113", "2", "yes"]
    report = write_report(results)
    assert report.count("**no**") == sum(row[-1] == "**no**" for row in goals.values())
    for case in full_cases():
        assert f"| {case.name} |" in report
    assert "| 433 pages, first fill | `market_data` | 8.66 (8.66–8.66) | 2.00 |" in report
    assert "| 433 pages, first fill | Get Page Count | 1 | 0.10 | 0.12 |" in report
