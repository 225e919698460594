"""The benchmark's contestants make the same table, and the report has what was measured."""

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

from benchmarks.cases import FORGE, Case, Results, full_cases
from benchmarks.goals import check_goals
from benchmarks.measure import measure_run
from benchmarks.report import render_report
from benchmarks.runner import call, list_states, markets_of, read_run
from benchmarks.tables import Items, Tables, WrongTableError, compare, to_records, true_items
from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from deployments.local.prepare import open_client
from deployments.local.processes import free_port
from deployments.local.servers import Servers, answers
from tests.support.api import Api
from tests.support.tables import scan

REGION_ID = 10000003  # one page
START = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture
def truth(market: Market) -> Items:
    """Return the true records of the served snapshot."""
    return true_items(REGION_ID, market.index)


@pytest.mark.usefixtures("served", "api")
@pytest.mark.parametrize("contestant", ["plain", "market_data", "universe", "paged_api", "one_task_a_page"])
def test_contestant_makes_the_true_table(contestant: str, store_url: str, market: Market) -> None:
    """Each contestant's table matches the market's orders."""
    tables = Tables(store_url)
    with tables.create({REGION_ID: {}}) as template:
        importlib.import_module(f"benchmarks.{contestant}").run([REGION_ID], template, 5)
        assert tables.check(template, [REGION_ID], market.index) > 20


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("contestant", ["no_tasks", "no_work"])
def test_end_of_a_floor_is_recorded(contestant: str, api: Api) -> None:
    """The flows without work run without a table, and Prefect's server records their end."""
    called_at = time.time()
    importlib.import_module(f"benchmarks.{contestant}").run([REGION_ID], "", 5)
    with open_client(api.url) as client:
        ended = read_run(client, contestant.replace("_", "-"), called_at).end_time
    assert ended
    assert called_at < ended.timestamp() < time.time()


def test_incomplete_table_is_refused(store_url: str, truth: Items, dynamodb: DynamoDBClient) -> None:
    """A table that lacks a record raises an error."""
    with Tables(store_url).create({REGION_ID: truth}) as template:
        items = scan(dynamodb, template.format(region_id=REGION_ID))
    compare("T", to_records(items), truth, is_whole=True)
    with pytest.raises(WrongTableError, match=f"1 of {len(truth)} records are wrong"):
        compare("T", to_records(dict(list(items.items())[1:])), truth, is_whole=True)


def take_memory() -> None:
    """Sum 64 MiB of bytes."""
    sum(bytearray(64 * 1024**2))


def test_run_is_measured() -> None:
    """A run's CPU and memory show in its figures."""
    figures = measure_run(take_memory)
    assert 0 < figures["CPU"] <= figures["seconds"] * 2
    assert 60 < figures["peak MiB"] < 200


def test_plain_script_runs_without_prefect() -> None:
    """A process that measures the plain script does not import Prefect, nor pandas before the script does."""
    code = "import sys, benchmarks.measure; first = 'pandas' in sys.modules; import benchmarks.plain; "
    code += "print(first, 'pandas' in sys.modules, 'prefect' in sys.modules)"
    assert call([sys.executable, "-c", code], dict(os.environ)) == b"False True False\n"


def test_slow_api_delays_requests(api: Api, tmp_path: Path) -> None:
    """A long request arrives whole, and its response after the delay."""
    port, target = free_port(), str(httpx.URL(api.url).port)
    servers = Servers(tmp_path, os.environ)
    servers.start(
        "slow", [sys.executable, "-m", "benchmarks.slow_api", str(port), target, "0.3"], {"PWD": str(CHECKOUT)}
    )
    try:
        servers.wait_for("slow", lambda: answers(f"http://127.0.0.1:{port}/api/health"))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", trust_env=False) as http:
            started = time.monotonic()
            response = http.post("/flows/filter", json={"flows": {"name": {"any_": ["x" * 200_000]}}})
            assert (response.status_code, response.json()) == (200, [])
            assert time.monotonic() - started >= 0.3
    finally:
        servers.stop()


def test_cases_are_unique_and_have_markets() -> None:
    """No contestant is measured twice under a name, and each latency has its market."""
    cases = full_cases()
    named = {(case.name, contestant) for case in cases for contestant in case.contestants}
    assert len(named) == sum(len(case.contestants) for case in cases)
    assert {market.latency_ms for market in markets_of(cases)} == {0, 50, 200}


def test_task_runs_are_grouped_by_state() -> None:
    """A state's mapped task runs are one span, in seconds after the flow run's start."""

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
    """Return results in which each figure of a flow is twice the plain script's."""
    results = Results(START, {"memory": "1 GiB", "prefect": "3"})
    names = ("seconds", "returns", "warmed up", "CPU", "server CPU", "peak MiB", "HEAD requests")
    for case in full_cases():
        for contestant in case.contestants:
            times = 1 if contestant == "plain" else 2
            figures = {name: [times * sum(map(len, [case.regions or range(case.pages)])) / 100] * 3 for name in names}
            results.measures.setdefault(case.name, {})[contestant] = figures
    results.states = {Case("first fill", FORGE).name: [["Get Page Count", "1", "0.10", "0.12"]]}
    return results


def test_report_has_every_goal_and_case() -> None:
    """The report checks all goals and has all cases."""
    results = made_up_results()
    goals = {case: row for case, *row in check_goals(results)}
    assert len(goals) == 14
    measured = "2.00 × (8.66 s, `plain` 4.33 s; the call returns after 8.66 s)"
    assert goals["433 pages, first fill"] == ["≤ 1.00 × `plain`", measured, "1.00 ×", "**no**"]
    assert goals["433 pages, first fill, `paged_api`"][-1] == "yes"
    measured = "+0.07 s (0.14 s, `plain` 0.07 s)"
    assert goals["7 pages, first fill"] == ["≤ `plain` + 0.5 s", measured, "+0.00 s", "yes"]
    assert goals["113 regions, not modified: HEAD requests"] == ["≤ 113", "2", "", "yes"]
    assert goals["113 regions, first fill: CPU"] == ["≤ 30 s", "2.26 s", "1.13 s, `plain`", "yes"]
    report = render_report(results)
    assert report.count("**no**") == sum(row[-1] == "**no**" for row in goals.values())
    for case in full_cases():
        assert f"| {case.name} |" in report
    assert "| 433 pages, first fill | `market_data` | 8.66 (8.66–8.66) | 2.00 |" in report
    assert "| 433 pages, first fill | Get Page Count | 1 | 0.10 | 0.12 |" in report
