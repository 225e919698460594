"""What a run shows in Prefect: names, tags, progress, log lines, events and artifacts."""

import base64
import json
import logging
import re
import threading
import time
from decimal import Decimal
from typing import Any

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect import State

from deployments.local.market.market import Market
from flows.market_data import Summary, market_data
from tasks.catalogue.names import type_name
from tasks.esi.errors import RefusedError
from tests.support.api import Api
from tests.support.runs import ask, read_artifacts
from tests.support.servers import finish_reports
from tests.support.tables import expire, inflate, records, scan
from tests.support.truth import truth
from tests.support.worlds import VENAL, Clock

SMALL = 10000003  # one page

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


def run(region_id: int, table_name: str, **parameters: Any) -> tuple[str, State[Any]]:
    """Run the flow, and return the flow run's id and its final state, even if it fails."""
    state: State[Any] = market_data(region_id, table_name, return_state=True, **parameters)
    return str(state.state_details.flow_run_id), state


def read_summary(state: State[Any]) -> Summary:
    """Return the summary of a successful run."""
    summary = state.result()
    assert isinstance(summary, Summary)
    return summary


def test_run_is_named_and_tagged(api: Api, market: Market, table_name: str) -> None:
    """A run's name has the region and the time, its tags the region and the snapshot."""
    run_id, _ = run(VENAL, table_name)
    finish_reports()
    flow_run = httpx.get(f"{api.url}/flow_runs/{run_id}", trust_env=False).json()
    assert re.fullmatch(r"10000015 Venal · \d{4}-\d\d-\d\d \d\d:\d\d", flow_run["name"])
    snapshot = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(market.index * market.every))
    assert sorted(flow_run["tags"]) == [f"region:{VENAL}", f"snapshot:{snapshot}"]


def test_log_has_two_lines_a_state_and_none_a_page(caplog: pytest.LogCaptureFixture, table_name: str) -> None:
    """Each state logs its begin and end, with counts and seconds; pages have no log lines."""
    with caplog.at_level(logging.INFO, "prefect.flow_runs"), caplog.at_level(logging.INFO, "prefect.task_runs"):
        run(VENAL, table_name)
    for state in ("Get Page Count", "Build Iterator", "Aggregate", "Store Records: compare"):
        assert f"{state} begins" in caplog.messages
        assert any(re.fullmatch(rf"{state} ends after \d+\.\d\d s", line) for line in caplog.messages)
    assert "Fetch Pages begins: 7 pages" in caplog.messages
    assert any(re.fullmatch(r"Fetch Pages ends after \d+\.\d\d s: 7 of 7 pages", line) for line in caplog.messages)
    assert not [line for line in caplog.messages if "page 3" in line]


def test_progress_moves(api: Api, market: Market, table_name: str) -> None:
    """The progress artifact grows while pages come in, at most four times a second."""
    market.latency_seconds = 0.2
    ids: list[str] = []
    at_work = threading.Thread(target=lambda: ids.append(run(19_000_023, table_name, fetch_concurrency=1)[0]))
    at_work.start()
    seen: dict[float, float] = {}  # when each value was first seen
    while at_work.is_alive():
        found = ask(api, "/artifacts/filter", {"artifacts": {"type": {"any_": ["progress"]}}, "sort": "CREATED_DESC"})
        ours = [a["data"] for a in found if re.fullmatch(r"Fetch Pages: \d+ of 23 pages", a["description"] or "")]
        for value in ours:
            seen.setdefault(value, time.monotonic())
        time.sleep(0.02)
    at_work.join()
    times = sorted(seen.values())
    assert len(times) >= 5
    assert list(seen) == sorted(seen)
    assert (len(times) - 1) / (times[-1] - times[0]) <= 4
    artifacts = [artifact for artifact in read_artifacts(api, ids[0]) if artifact["type"] == "progress"]
    assert [artifact["data"] for artifact in artifacts] == [100, 100]
    assert artifacts[0]["description"] == "Fetch Pages: 23 of 23 pages"
    assert re.fullmatch(r"Store Records: ([\d,]+) of \1 writes", artifacts[1]["description"])


def test_what_a_run_stored_is_left_to_be_read(
    api: Api, dynamodb: DynamoDBClient, market: Market, clock: Clock, table_name: str
) -> None:
    """A run that stored something creates its summary, and a table of the types that visibly moved most."""
    run(VENAL, table_name)
    before = records(scan(dynamodb, table_name))
    expire(dynamodb, table_name)
    clock.now += 300
    run_id, state = run(VENAL, table_name)
    summary = read_summary(state)
    kept = {artifact["key"]: artifact["data"] for artifact in read_artifacts(api, run_id) if artifact["key"]}
    assert kept.keys() == {f"summary-{VENAL}", f"movers-{VENAL}"}
    for line in (
        "| region | 10000015 Venal |",
        "| order_type | sell |",
        "| price | min |",
        "| detail | compact |",
        ", not ESI: made up, unless it passes ESI's on |",
        f"| written | {summary.written:,} |",
        "| other items | 0 in the table that are not records, left alone |",
        "| … Fetch Pages | ",
    ):
        assert line in kept[f"summary-{VENAL}"]
    machine = (Decimal(7 + summary.records + 5) * 25 + Decimal(summary.records) * Decimal("0.625")) / 1_000_000
    for name, cost in (("cost", read_cost(summary)), ("cost by a state machine", machine)):
        wanted = f"| {name} | ${cost:.6f} a run, ${cost * 8640:,.2f} a month of runs like this, one every 5 minutes |"
        assert wanted in kept[f"summary-{VENAL}"]
    pictures = re.findall(r"^!\[.+\]\(data:image/png;base64,(.+)\)$", kept[f"summary-{VENAL}"], re.MULTILINE)
    assert [base64.b64decode(picture)[:4] for picture in pictures] == [b"\x89PNG"] * 3
    assert len(kept[f"summary-{VENAL}"]) < 200_000

    moved = {
        pk: max(
            abs(number(item, "price") - number(before[pk], "price")) * number(item, "volume"),
            abs(number(item, "volume") - number(before[pk], "volume")) * number(item, "price"),
        )
        for pk, item in truth(market, VENAL).items()
        if pk in before
    }
    after = truth(market, VENAL)
    shown = [pk for pk in moved if is_shown_as_moved(before[pk], after[pk])]
    most = sorted(shown, key=lambda pk: -moved[pk])[:20]
    rows = json.loads(kept[f"movers-{VENAL}"])
    assert [str(row["id"]) for row in rows] == most
    assert list(rows[0])[:4] == ["type", "old price", "new price", "price %"]
    assert rows[0]["type"] == type_name(int(most[0]))
    prices = [number(item, "price") for pk, item in truth(market, VENAL).items() if pk in before]
    assert sum(summary.price_changes.values()) == sum(
        price != number(before[pk], "price") for pk, price in zip(moved, prices, strict=True)
    )
    assert rows[0]["old price"] == f"{number(before[most[0]], 'price'):,.2f}"


def number(item: dict[str, Any], name: str) -> float:
    """Return one of an item's numbers."""
    return float(item[name]["N"])


def is_shown_as_moved(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether a record's price or volume changed by at least 0.1 %, rounded."""
    return any(round(100 * abs(number(new, name) / number(old, name) - 1), 1) for name in ("price", "volume"))


def read_cost(summary: Summary) -> Decimal:
    """Return the cost of a run's units, in USD."""
    units = (Decimal(summary.consumed_write_units), Decimal(summary.consumed_read_units))
    return (units[0] * Decimal("0.625") + units[1] * Decimal("0.125")) / 1_000_000


@pytest.mark.parametrize("case", ["first fill", "other parameters", "the same snapshot"])
def test_month_is_said_of_what_recurs(api: Api, table_name: str, case: str) -> None:
    """Without an earlier snapshot of the same parameters, the summary has the cost of the run, but not of a month."""
    parameters: dict[str, dict[str, Any]] = {"other parameters": {"price": "max"}, "the same snapshot": {"force": True}}
    if case in parameters:
        run(SMALL, table_name)
    run_id, state = run(SMALL, table_name, **parameters.get(case, {}))
    (summary,) = [artifact["data"] for artifact in read_artifacts(api, run_id) if artifact["key"] == f"summary-{SMALL}"]
    assert f"| cost | ${read_cost(read_summary(state)):.6f} for this run |" in summary
    assert "| compared with | no earlier snapshot with these parameters |" in summary
    assert not re.findall(r"\$[\d,.]+ a month", summary)
    assert f"| price | {parameters.get(case, {}).get('price', 'min')} |" in summary


def test_month_is_of_runs_as_far_apart(api: Api, dynamodb: DynamoDBClient, clock: Clock, table_name: str) -> None:
    """After an hour without runs, the monthly cost assumes a run per hour, not every five minutes."""
    run(SMALL, table_name)
    expire(dynamodb, table_name)
    clock.now += 3600
    run_id, state = run(SMALL, table_name)
    cost = read_cost(read_summary(state))
    data = [artifact["data"] for artifact in read_artifacts(api, run_id) if artifact["key"] == "summary-10000003"]
    assert (
        f"| cost | ${cost:.6f} a run, ${cost * 720:,.2f} a month of runs like this, one every 60 minutes |" in data[0]
    )


def test_not_modified_leaves_nothing(api: Api, table_name: str) -> None:
    """A run that finds nothing new creates no artifact, which would bury the others."""
    run(SMALL, table_name)
    run_id, state = run(SMALL, table_name)
    assert state.name == "NotModified"
    assert read_artifacts(api, run_id) == []


def test_shrunk_snapshot_is_explained(api: Api, dynamodb: DynamoDBClient, clock: Clock, table_name: str) -> None:
    """If the shrink guard refuses a snapshot, an artifact explains why and what to do."""
    run(SMALL, table_name)
    inflate(dynamodb, table_name)
    clock.now += 300
    run_id, _ = run(SMALL, table_name)
    (failure,) = [artifact for artifact in read_artifacts(api, run_id) if artifact["key"] == "failure-10000003"]
    assert "**What failed.** ShrinkError: region 10000003 has" in failure["data"]
    assert "If it is right, run once with `force`." in failure["data"]


def test_failure_is_explained(api: Api, monkeypatch: pytest.MonkeyPatch, table_name: str) -> None:
    """A failed run's artifact says what failed, what was tried and what to do."""
    monkeypatch.setattr("tasks.orders.columns.decode_orders", refuse)
    run_id, _ = run(VENAL, table_name)
    (failure,) = [artifact for artifact in read_artifacts(api, run_id) if artifact["key"]]
    assert failure["key"] == f"failure-{VENAL}"
    assert "**What failed.** RefusedError: page " in failure["data"]
    assert "**What was tried.** It was not retried: a retry would get the same response." in failure["data"]


def refuse(_body: bytes, what: str, *, has_places: bool) -> None:
    """Raise an error for a page."""
    raise RefusedError(f"{what}: planned")


@pytest.mark.parametrize("broken", ["draw_history", "write_summary", "write_movers"])
def test_artifact_that_fails_is_a_warning(
    dynamodb: DynamoDBClient,
    market: Market,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    table_name: str,
    broken: str,
) -> None:
    """An artifact that cannot be created becomes a warning; the data are stored all the same."""

    def fail(*_: object) -> None:
        raise OSError("planned")

    fail.__name__ = broken
    home = "history" if broken == "draw_history" else "outcome"
    monkeypatch.setattr(f"tasks.reporting.{home}.{broken}", fail)
    assert market_data(SMALL, table_name).written
    assert records(scan(dynamodb, table_name)) == truth(market, SMALL)
    finish_reports()
    assert f"not reported to Prefect: {broken}: OSError: planned" in caplog.text
