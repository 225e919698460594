"""What is measured, how often, and what comes out of it."""

from datetime import datetime
from statistics import median
from typing import Literal

import msgspec

from tasks.catalogue.names import regions

Kind = Literal["first fill", "a tenth changed", "not modified", "Prefect alone", "process start", "deployment run"]
PLAIN, FLOW, DECLARED, UNIVERSE, IDIOMATIC = "plain", "market_data", "paged_api", "universe", "one_task_a_page"
NO_TASKS, NO_WORK = "no_tasks", "no_work"
SIZES = (1, 7, 50, 433, 1686)  # pages: a small region, Venal, a middling one, The Forge, all of ESI's regions together
FORGE, API_LATENCY_MS = 433, 100
LATENCIES_MS, CONCURRENCIES, DEFAULT_CONCURRENCY = (0, 50, 200), (5, 20, 50, 100), 20
REPEATS, FEWER_REPEATS = 5, 3
REGIONS = tuple(regions())  # those with a market


Measures = dict[str, dict[str, list[float]]]  # by contestant and figure


class Case(msgspec.Struct, frozen=True):
    """A job that contestants do in turn."""

    kind: Kind
    pages: int = 0  # none where no region is fetched
    latency_ms: int = 0  # added to each of the market's answers
    fetch_concurrency: int = DEFAULT_CONCURRENCY
    api_latency_ms: int = 0  # added to each call of Prefect's API
    as_deployed: bool = False  # with what `make up` sets for flow runs on top of Prefect's defaults
    regions: tuple[int, ...] = ()  # instead of one region of so many pages
    contestants: tuple[str, ...] = ()
    repeats: int = REPEATS
    is_warmed: bool = False  # whether it is measured in a process that has done a page before, too

    @property
    def region_ids(self) -> tuple[int, ...]:
        """The market stand-in's regions."""
        return self.regions or (region_of(self.pages or 1),)

    @property
    def name(self) -> str:
        """The case in a few words, which no other case has."""
        pages = f"{self.pages} page{'s' * (self.pages > 1)}, " * bool(self.pages)
        parts = [(f"{len(self.regions)} regions, " if self.regions else pages) + self.kind]
        if self.latency_ms or self.fetch_concurrency != DEFAULT_CONCURRENCY:
            parts.append(f"{self.latency_ms} ms, {self.fetch_concurrency} at once")
        parts += [f"{self.api_latency_ms} ms more a call of Prefect's API"] * bool(self.api_latency_ms)
        return ", ".join(parts + ["as deployed"] * self.as_deployed)


class Results(msgspec.Struct):
    """All that a run of the benchmark has found."""

    measured_at: datetime
    machine: dict[str, str]
    measures: dict[str, Measures] = {}  # by case
    states: dict[str, list[list[str]]] = {}  # by case: rows of the table of states, from their names on

    def median(self, contestant: str, case: Case, figure: str = "seconds") -> float:
        """Return the median of a figure; raise KeyError if it was not measured."""
        return median(self.measures[case.name][contestant][figure])


def region_of(pages: int) -> int:
    """Return the market stand-in's region of a number of pages."""
    return 19_000_000 + pages


def times(pages: int) -> int:
    """Return how often a size is measured: more often if a goal is set for it."""
    return REPEATS if pages in {7, FORGE} else FEWER_REPEATS


def quick_cases() -> list[Case]:
    """Return some of the cases, once, with three regions for all: they show in a few minutes that all of it works."""
    few = (10000015, 10000001, 10000063)  # 7 pages, 20 pages, and an empty one
    large = {Case("first fill", FORGE).name, Case("first fill", FORGE, api_latency_ms=API_LATENCY_MS).name}
    quick = [case for case in full_cases() if case.pages in {0, 7} or (case.name in large and FLOW in case.contestants)]
    return [msgspec.structs.replace(case, repeats=1, regions=few if case.regions else ()) for case in quick]


def full_cases() -> list[Case]:
    """Return all cases."""
    both, few = (PLAIN, FLOW), FEWER_REPEATS
    pairs = [(ms, at_once) for ms in LATENCIES_MS for at_once in CONCURRENCIES if at_once != DEFAULT_CONCURRENCY]
    return [
        Case("Prefect alone", contestants=(NO_TASKS, NO_WORK)),
        Case("Prefect alone", api_latency_ms=API_LATENCY_MS, contestants=(NO_TASKS, NO_WORK), repeats=few),
        *(Case("first fill", pages, contestants=both, repeats=times(pages), is_warmed=True) for pages in SIZES),
        *(Case("a tenth changed", pages, contestants=both, repeats=times(pages), is_warmed=True) for pages in SIZES),
        Case("not modified", FORGE, contestants=(FLOW,), is_warmed=True),
        *(Case("first fill", FORGE, ms, contestants=(FLOW, DECLARED), is_warmed=not ms) for ms in (0, 50)),
        Case("first fill", FORGE, api_latency_ms=API_LATENCY_MS, contestants=(FLOW,), repeats=few),
        *(Case("first fill", FORGE, latency_ms, contestants=both) for latency_ms in LATENCIES_MS if latency_ms),
        *(Case("first fill", FORGE, *pair, contestants=both, repeats=1) for pair in pairs),
        *(Case("first fill", pages, as_deployed=True, contestants=(FLOW,)) for pages in (7, FORGE)),
        Case("not modified", FORGE, as_deployed=True, contestants=(FLOW,)),
        *(Case("first fill", pages, contestants=(IDIOMATIC,), repeats=few) for pages in SIZES if pages <= FORGE),
        Case("first fill", regions=REGIONS, contestants=(PLAIN, UNIVERSE), repeats=few),
        Case("a tenth changed", regions=REGIONS, contestants=(PLAIN, UNIVERSE), repeats=few),
        Case("not modified", regions=REGIONS, contestants=(UNIVERSE,), repeats=few),
        Case("process start", contestants=(NO_TASKS, FLOW)),
        Case("deployment run", FORGE, contestants=(NO_TASKS, FLOW)),
    ]
