"""What the pages say of the project is what it is: what can be counted is counted."""

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from deployments.automations import read_automations
from deployments.local.environment import CHECKOUT
from flows.market_data import market_data
from tasks.build_iterator import split_pages
from tasks.catalogue.names import regions, types
from tasks.orders.records import Book, Record
from tasks.reporting.costs import cost_of_run, cost_of_state_machine
from tasks.run import Target, Update
from tasks.store_records import split_writes
from tasks.table.records import Changes
from tests.support.api import Api
from tests.support.deployed import DEPLOYED, FLOWS
from tests.support.runs import read_task_runs
from tests.support.worlds import VENAL

NAMES = [
    "README.md",
    "CONTRIBUTING.md",
    "prefect.yaml",
    *(str(path.relative_to(CHECKOUT)) for path in Path(CHECKOUT, "docs").rglob("*.md")),
]
PAGES = {name: Path(CHECKOUT, name).read_text() for name in NAMES}
DEPLOYMENTS = {f"{FLOWS[each['entrypoint']].name}/{each['name']}": each for each in DEPLOYED}
THE_FORGE, RECORDS = 10000002, 15_000
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count_task_runs(pages: int, writes: int) -> int:
    """Return how many task runs a run has: Build Iterator, Fetch Pages and Store Records, and four that are alone."""
    changes = Changes([Record(n, 1.0, 1) for n in range(writes)], {}, [], 0, 0)
    parts = split_writes([Update(cast("Target", None), Book(changes.puts, 0), changes)])
    return 5 + len(split_pages(pages)) + len(parts)


@pytest.mark.usefixtures("served", "store_url")
def test_task_runs_are_those_of_a_run(api: Api, table_name: str) -> None:
    """What is counted below is what Prefect shows of a real run."""
    state = market_data(VENAL, table_name, return_state=True)
    summary: Any = state.result()
    shown = read_task_runs(api, str(state.state_details.flow_run_id))
    assert len(shown) == count_task_runs(summary.pages, summary.written)


def test_task_runs_are_stated() -> None:
    """Pages that say how many task runs a run has all say the same."""
    forge = count_task_runs(regions()[THE_FORGE].pages, len(types()))
    everything = count_task_runs(sum(region.pages for region in regions().values()), len(types()))
    (stated,) = re.findall(r"up to (\d+) task runs, .* up to (\d+) \|", PAGES["docs/from-step-functions.md"])
    assert stated == (str(forge), str(everything))
    assert re.findall(r"up to (\d+) task runs each", PAGES["docs/machines.md"]) == [str(forge)]
    drawn = re.findall(
        r"^  \S.*?  (?:Get|Build|Fetch|Aggregate|Store).*$", PAGES["docs/from-step-functions.md"], re.MULTILINE
    )
    numbers = [re.sub(r"[^\d+]", "", line[65:]).split("+") for line in drawn]
    assert sum(int(number) for line in numbers for number in line) == forge


def test_task_runs_are_those_that_were_measured() -> None:
    """The run that docs/performance.md takes apart has as many task runs as one has now."""
    measured = re.findall(r"\| 433 pages, first fill \| [A-Z][^|]+ \| (\d+) \|", PAGES["docs/performance.md"])
    assert sum(map(int, measured)) == count_task_runs(regions()[THE_FORGE].pages, len(types()))


def test_deployments_are_listed() -> None:
    """Each deployment is in the table of them, with its table and its schedule; no page names one that is not there."""
    rows = re.findall(r"^\| `([a-z-]+/[a-z-]+)` \| .+ \| (.+) \| (.+) \|$", PAGES["docs/operating.md"], re.MULTILINE)
    assert [name for name, _table, _schedule in rows if name in DEPLOYMENTS] == [name for name, *_ in rows]
    assert {name for name, *_ in rows} == DEPLOYMENTS.keys()
    for name, table, schedule in rows:
        parameters, schedules = DEPLOYMENTS[name]["parameters"], DEPLOYMENTS[name].get("schedules", [])
        region_id = parameters["region_id"] if name in {"market-data/venal", "market-data/the-forge"} else "{region_id}"
        own = parameters["table_name"].replace("{region_id}", str(region_id))
        assert table in {f"`{own}`", "one per region"}
        minutes = [f"every {each['interval'] // 60} minutes" for each in schedules]
        assert schedule.split(":")[0] == ", ".join(minutes or ["none"])
    flows = "|".join(flow.name for flow in FLOWS.values())
    for page, text in PAGES.items():
        named = set(re.findall(rf"\b(?:{flows})/[a-z][a-z-]+", text))
        assert named <= DEPLOYMENTS.keys(), page
        assert page != "README.md" or named == DEPLOYMENTS.keys()
    assert f"has {WORDS[len(DEPLOYMENTS)]} [deployments]" in PAGES["README.md"]


def test_actions_are_counted() -> None:
    """Each page that says how many actions the policy for workers has says the same, and one lists them."""
    statement = json.loads(Path(CHECKOUT, "deployments/aws/iam-policy.json").read_text())["Statement"][0]
    stated = {page: re.findall(r"\b(\w+) actions (?:of|on)\b", text) for page, text in PAGES.items()}
    pages = ["README.md", "docs/from-step-functions.md", "docs/machines.md", "docs/security.md"]
    assert {page for page, words in stated.items() if words} == set(pages)
    assert {word for words in stated.values() for word in words} == {WORDS[len(statement["Action"])]}
    listed = re.findall(r"^\| `(\w+)` \|", PAGES["docs/security.md"], re.MULTILINE)
    assert sorted(f"dynamodb:{name}" for name in listed) == sorted(statement["Action"])


def test_automations_are_counted() -> None:
    """What Prefect Cloud's plan must allow is as many automations as there are."""
    assert re.findall(r"task runs each, and (\w+) automations", PAGES["docs/machines.md"]) == [
        WORDS[len(read_automations())]
    ]


def test_regions_and_pages_are_counted() -> None:
    """Where a page says how many regions or pages ESI has, it is as many as the catalogue has."""
    whole, pages = "\n".join(PAGES.values()), {region_id: region.pages for region_id, region in regions().items()}
    for pattern, counted in (
        (r"\b(?:[Aa]ll|the) ([\d,]+) regions", len(regions())),
        (r"regions'?[^.|]*?, ([\d,]+) pages", sum(pages.values())),
        (r"The Forge,? ([\d,]+) pages", pages[THE_FORGE]),
        (r"Venal,? ([\d,]+) pages", pages[VENAL]),
    ):
        stated = {int(number.replace(",", "")) for number in re.findall(pattern, whole)}
        assert stated == {counted}, pattern


def test_costs_are_computed() -> None:
    """What pages say that a run or a month costs is what the code computes for as many pages and records."""
    machine = cost_of_state_machine(regions()[THE_FORGE].pages, RECORDS)
    tenth = cost_of_run(RECORDS / 10, 0)
    assert f"${machine:.3f}: 15,438 transitions" in PAGES["docs/from-step-functions.md"]
    assert f"${tenth:.3f} if a tenth of the records differs" in PAGES["docs/from-step-functions.md"]
    assert f"433 pages, 15,000 records | ${machine * 8640:,.0f} a month |" in PAGES["docs/from-step-functions.md"]
    assert f"**${tenth * 8640:.2f} for the table**" in PAGES["docs/machines.md"]
    assert f"${10 * tenth * 8640:.2f} if every record changed" in PAGES["docs/machines.md"]


@pytest.mark.parametrize("page", NAMES)
def test_dollars_are_no_price(page: str) -> None:
    """A price is in ISK; what is in dollars is a cost."""
    assert not re.findall(
        r"[Pp]rices? (?:per run|below|list|of a million)|plan's price|the price\.|\bUSD price", PAGES[page]
    )
