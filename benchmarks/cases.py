"""The benchmark's cases and results."""

from datetime import datetime
from statistics import median
from typing import Literal

import msgspec

from tasks.catalogue.names import regions

Kind = Literal["first fill", "a tenth changed", "not modified", "Prefect alone", "process start", "deployment run"]
# Modules of this package with the function `run`.
Contestant = Literal["plain", "market_data", "universe", "paged_api", "one_task_a_page", "no_tasks", "no_work"]
FORGE, API_LATENCY_MS, DEFAULT_CONCURRENCY, REPEATS = 433, 100, 20, 5
# Repeats by pages: a small region, Venal, a medium one, The Forge, all regions together.
SIZES = {1: 3, 7: REPEATS, 50: 3, FORGE: REPEATS, 1686: 3}
REGIONS = tuple(regions())

Measures = dict[Contestant, dict[str, list[float]]]  # by contestant and figure


class Case(msgspec.Struct, frozen=True):
    """A job that contestants run in turn."""

    kind: Kind
    pages: int = 0  # 0 if no region is fetched
    latency_ms: int = 0  # added to each of the market's responses
    fetch_concurrency: int = DEFAULT_CONCURRENCY
    api_latency_ms: int = 0  # added to each request to Prefect's API
    as_deployed: bool = False  # with the settings of `make up` for flow runs, not Prefect's defaults
    regions: tuple[int, ...] = ()  # instead of one made-up region
    contestants: tuple[Contestant, ...] = ()
    repeats: int = REPEATS
    is_warmed: bool = False  # also measure runs in a process that has run before

    @property
    def region_ids(self) -> tuple[int, ...]:
        """The regions that a run fetches."""
        return self.regions or (region_of(self.pages or 1),)

    @property
    def name(self) -> str:
        """A unique description."""
        pages = f"{self.pages} page{'s' * (self.pages > 1)}, " * bool(self.pages)
        parts = [(f"{len(self.regions)} regions, " if self.regions else pages) + self.kind]
        if self.latency_ms or self.fetch_concurrency != DEFAULT_CONCURRENCY:
            parts.append(f"{self.latency_ms} ms, {self.fetch_concurrency} in flight")
        parts += [f"+{self.api_latency_ms} ms per request to Prefect's API"] * bool(self.api_latency_ms)
        return ", ".join(parts + ["as deployed"] * self.as_deployed)


class Results(msgspec.Struct):
    """The results of a run of the benchmark."""

    measured_at: datetime
    machine: dict[str, str]
    measures: dict[str, Measures] = {}  # by case
    states: dict[str, list[list[str]]] = {}  # by case: rows of the table of states, without the case

    def median(self, contestant: Contestant, case: Case, figure: str = "seconds") -> float:
        """Return the median of a figure; raise KeyError if it was not measured."""
        return median(self.measures[case.name][contestant][figure])


def region_of(pages: int) -> int:
    """Return the market stand-in's made-up region with this number of pages."""
    return 19_000_000 + pages


def quick_cases() -> list[Case]:
    """Return a few cases, each with one repeat, and three regions instead of all."""
    few = (10000015, 10000001, 10000063)  # 7 pages, 20 pages, and an empty one
    fills = {Case("first fill", FORGE).name, Case("first fill", FORGE, api_latency_ms=API_LATENCY_MS).name}
    cases = [case for case in full_cases() if case.contestants != ("one_task_a_page",) or case.pages == 7]
    quick = [case for case in cases if case.pages in {0, 7} or case.name in fills]
    return [msgspec.structs.replace(case, repeats=1, regions=few if case.regions else ()) for case in quick]


def full_cases() -> list[Case]:
    """Return all cases."""
    both: tuple[Contestant, ...] = ("plain", "market_data")
    three: tuple[Contestant, ...] = (*both, "paged_api")
    fillers = {pages: three if pages == FORGE else both for pages in SIZES}
    return [
        Case("Prefect alone", contestants=("no_tasks", "no_work")),
        Case("Prefect alone", api_latency_ms=API_LATENCY_MS, contestants=("no_tasks", "no_work"), repeats=3),
        *(Case("first fill", n, contestants=fillers[n], repeats=SIZES[n], is_warmed=True) for n in SIZES),
        *(Case("a tenth changed", n, contestants=both, repeats=SIZES[n], is_warmed=True) for n in SIZES),
        Case("not modified", FORGE, contestants=("market_data",), is_warmed=True),
        Case("first fill", FORGE, api_latency_ms=API_LATENCY_MS, contestants=("market_data",), repeats=3),
        Case("first fill", FORGE, 50, contestants=three),
        Case("first fill", FORGE, 200, contestants=both),
        *(Case("first fill", FORGE, ms, n, contestants=both, repeats=1) for ms in (0, 50, 200) for n in (5, 50, 100)),
        *(Case("first fill", n, as_deployed=True, contestants=("market_data",)) for n in (7, FORGE)),
        Case("not modified", FORGE, as_deployed=True, contestants=("market_data",)),
        *(Case("first fill", n, contestants=("one_task_a_page",), repeats=3) for n in SIZES if n <= FORGE),
        Case("first fill", regions=REGIONS, contestants=("plain", "universe"), repeats=3),
        Case("a tenth changed", regions=REGIONS, contestants=("plain", "universe"), repeats=3),
        Case("not modified", regions=REGIONS, contestants=("universe",), repeats=3),
        Case("process start", contestants=("no_tasks", "market_data")),
        Case("deployment run", FORGE, contestants=("no_tasks", "market_data")),
    ]
