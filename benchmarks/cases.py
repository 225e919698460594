"""What is measured, how often, and what comes out of it."""

import statistics
from datetime import datetime
from typing import Literal

import msgspec

from benchmarks.cpu_profile import Profile
from benchmarks.measure import Measure

Kind = Literal["first fill", "steady state", "not modified", "floor"]
SIZES = (1, 7, 50, 433, 1686)  # pages: a small region, Venal, a middling one, The Forge, all of ESI's regions together
FORGE = 433
LATENCIES_MS = (0, 50, 200)
CONCURRENCIES = (5, 20, 50, 100)
DEFAULT_CONCURRENCY = 20
REPEATS, FEWER_REPEATS = 5, 3
FLOW, PLAIN, IDIOMATIC, NO_TASKS, NO_WORK = "market_data", "plain", "one_task_a_page", "no_tasks", "no_work"
QUIET, UNSEEN = "no_heartbeats", "unseen"  # the flow again
FLOWS = (FLOW, QUIET)
CALLED = (PLAIN, FLOW, QUIET, UNSEEN)
FLOORS = (NO_TASKS, NO_WORK)


class Case(msgspec.Struct, frozen=True):
    """A job that contestants do in turn."""

    kind: Kind
    pages: int
    latency_ms: int = 0
    fetch_concurrency: int = DEFAULT_CONCURRENCY
    as_deployed: bool = False  # with what `make up` sets for flow runs on top of Prefect's defaults
    contestants: tuple[str, ...] = ()
    repeats: int = REPEATS

    @property
    def region_id(self) -> int:
        """The market stand-in's region of that size."""
        return region_of(self.pages)

    @property
    def name(self) -> str:
        """The case in a few words, which no other case has."""
        what = "Prefect alone" if self.kind == "floor" else f"{self.pages} page{'s' * (self.pages > 1)}, {self.kind}"
        latency = f", {self.latency_ms} ms, {self.fetch_concurrency} at once" if self.is_slow else ""
        return what + latency + ", as deployed" * self.as_deployed

    @property
    def is_slow(self) -> bool:
        """Whether it is one of those that vary latency and concurrency."""
        return self.latency_ms > 0 or self.fetch_concurrency != DEFAULT_CONCURRENCY


class Result(msgspec.Struct, frozen=True):
    """A contestant's measures in a case."""

    case: Case
    contestant: str
    measures: list[Measure]

    def median(self, figure: str = "seconds") -> float:
        """Return the median of a figure of `Measure`."""
        return statistics.median(self.values(figure))

    def values(self, figure: str = "seconds") -> list[float]:
        """Return a figure of all measures that have it."""
        return [value for measure in self.measures if (value := getattr(measure, figure)) is not None]


class Span(msgspec.Struct, frozen=True):
    """A state of one flow run, by Prefect's own timestamps."""

    state: str
    task_runs: int
    begun: float  # seconds after the flow run's start
    ended: float


class Results(msgspec.Struct):
    """All that a run of the benchmark has found."""

    measured_at: datetime
    machine: dict[str, str]
    versions: dict[str, str]
    results: list[Result] = []
    orders: dict[int, int] = {}  # by pages
    spans: dict[str, list[Span]] = {}  # by case
    profiles: dict[str, Profile] = {}  # of the 433-page first fill, by contestant
    deployments: dict[str, list[float]] = {}  # seconds of `prefect deployment run --watch`, by contestant

    def find(self, contestant: str, case: Case) -> Result | None:
        """Return a contestant's result in a case, None if it was not measured; repeats and others do not matter."""
        found = (result for result in self.results if (result.contestant, result.case.name) == (contestant, case.name))
        return next(found, None)

    def floor(self, contestant: str) -> float:
        """Return the median seconds of a flow that does nothing, without heartbeats; 0 if it was not measured."""
        found = self.find(contestant, Case("floor", 1))
        return found.median() if found else 0.0


def region_of(pages: int) -> int:
    """Return the market stand-in's region of a number of pages."""
    return 19_000_000 + pages


def quick_cases() -> list[Case]:
    """Return what shows in two minutes that all of it works."""
    return [
        Case("floor", 1, contestants=(NO_TASKS,), repeats=1),
        Case("first fill", 7, contestants=(*CALLED, IDIOMATIC), repeats=1),
        Case("not modified", 7, contestants=(FLOW,), repeats=1),
        Case("first fill", FORGE, contestants=CALLED, repeats=1),
        Case("steady state", FORGE, contestants=(PLAIN, FLOW), repeats=1),
    ]


def full_cases() -> list[Case]:
    """Return all cases."""
    return [
        Case("floor", 1, contestants=FLOORS),
        *(Case("first fill", pages, contestants=(*CALLED, IDIOMATIC)) for pages in SIZES if pages < FORGE),
        *(Case("first fill", pages, contestants=CALLED) for pages in SIZES if pages >= FORGE),
        *(Case("steady state", pages, contestants=(PLAIN, FLOW)) for pages in SIZES),
        Case("not modified", FORGE, contestants=FLOWS),
        *slow_cases(),
        *(Case("first fill", pages, as_deployed=True, contestants=(FLOW,)) for pages in (7, FORGE)),
        Case("not modified", FORGE, as_deployed=True, contestants=(FLOW,)),
        Case("first fill", FORGE, contestants=(IDIOMATIC,), repeats=FEWER_REPEATS),
        Case("first fill", SIZES[-1], contestants=(IDIOMATIC,), repeats=1),
    ]


def slow_cases() -> list[Case]:
    """Return the cases of latency and concurrency that the sizes do not have already; those with a goal come first."""
    default = [
        Case("first fill", FORGE, latency_ms, contestants=(PLAIN, FLOW, QUIET))
        for latency_ms in LATENCIES_MS
        if latency_ms
    ]
    others = [
        Case("first fill", FORGE, latency_ms, at_once, contestants=(PLAIN, FLOW), repeats=1)
        for latency_ms in LATENCIES_MS
        for at_once in CONCURRENCIES
        if at_once != DEFAULT_CONCURRENCY
    ]
    return default + others
