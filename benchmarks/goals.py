"""What was set out to be reached, and what was."""

from collections.abc import Callable
from contextlib import suppress

import msgspec

from benchmarks.cases import API_LATENCY_MS, FLOW, FORGE, NO_TASKS, NO_WORK, PLAIN, REGIONS, UNIVERSE, Case, Results

FILL, FLOOR, START = Case("first fill", FORGE), Case("Prefect alone"), Case("process start")
FAR_FILL, FAR_FLOOR = (msgspec.structs.replace(case, api_latency_ms=API_LATENCY_MS) for case in (FILL, FLOOR))
ALL, IDLE = Case("first fill", regions=REGIONS), Case("not modified", regions=REGIONS)


Row = list[str]  # case, goal, measured, whether it is met


def judge_goals(results: Results) -> list[Row]:
    """Return all goals whose cases have been measured."""
    judges: list[Callable[[Results], Row]] = [
        lambda found: judge_ratio(found, FLOW, FILL, 1.0),
        lambda found: judge_ratio(found, FLOW, Case("first fill", FORGE, latency_ms=50), 1.0),
        lambda found: judge_ratio(found, FLOW, Case("a tenth changed", FORGE), 0.7),
        lambda found: judge_more(found, Case("first fill", 7), PLAIN, 0.5, "plain script"),
        lambda found: judge_most(found, FLOW, Case("not modified", FORGE), 0.5),
        lambda found: judge_more(found, START, NO_TASKS, 0.3, "an empty flow's first line"),
        lambda found: judge_ratio(found, UNIVERSE, ALL, 1.1),
        lambda found: judge_most(found, UNIVERSE, ALL, 30, "CPU", ": CPU of the process"),
        lambda found: judge_most(found, UNIVERSE, Case("a tenth changed", regions=REGIONS), 15),
        lambda found: judge_most(found, UNIVERSE, IDLE, 2),
        lambda found: judge_most(found, UNIVERSE, IDLE, len(REGIONS), "HEADs", ": HEAD requests", unit=""),
        lambda found: judge_most(found, FLOW, FILL, 0.6, "server CPU", ": CPU of Prefect's server"),
        judge_far_api,
    ]
    goals: list[Row] = []
    for judge in judges:
        with suppress(KeyError):  # a case of it was not measured
            goals.append(judge(results))
    return goals


def is_met(met: bool) -> str:
    """Return the word."""
    return "yes" if met else "**no**"


def judge_ratio(results: Results, contestant: str, case: Case, most: float) -> Row:
    """Compare a flow's seconds with the plain script's."""
    flow, plain = results.median(contestant, case), results.median(PLAIN, case)
    returned = results.median(contestant, case, "returns")
    measured = f"{flow / plain:.2f} × ({flow:.2f} s, plain {plain:.2f} s; the call returns after {returned:.2f} s)"
    return [case.name, f"≤ {most:.2f} × plain", measured, is_met(flow <= most * plain)]


def judge_more(results: Results, case: Case, other: str, most: float, what: str) -> Row:
    """Judge by how many seconds the flow takes longer than another contestant."""
    flow, least = results.median(FLOW, case), results.median(other, case)
    measured = f"{flow - least:+.2f} s ({flow:.2f} s, {what} {least:.2f} s)"
    return [case.name, f"≤ {what} + {most} s", measured, is_met(flow - least <= most)]


def judge_most(
    results: Results,
    contestant: str,
    case: Case,
    most: float,
    figure: str = "seconds",
    what: str = "",
    unit: str = " s",
) -> Row:
    """Judge a figure by a bound."""
    value = results.median(contestant, case, figure)
    return [case.name + what, f"≤ {most}{unit}", f"{value:.{2 if unit else 0}f}{unit}", is_met(value <= most)]


def judge_far_api(results: Results) -> Row:
    """Judge a run with a wait added to each call of Prefect's API: the work must not wait for calls of its own."""
    far, work = results.median(NO_WORK, FAR_FLOOR), results.median(FLOW, FILL) - results.median(NO_WORK, FLOOR)
    flow = results.median(FLOW, FAR_FILL)
    measured = f"{flow:.2f} s, allowed {far + work:.2f} s ({far:.2f} s without work, the work {work:.2f} s)"
    return [FAR_FILL.name, "≤ as many task runs + the work", measured, is_met(flow <= far + work)]
