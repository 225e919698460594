"""What was set out to be reached, and what was."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from benchmarks.cases import (
    API_LATENCY_MS,
    DECLARED,
    FLOW,
    FORGE,
    NO_TASKS,
    NO_WORK,
    PLAIN,
    REGIONS,
    UNIVERSE,
    Case,
    Results,
)

FILL, FLOOR, START = Case("first fill", FORGE), Case("Prefect alone"), Case("process start")
FAR_FILL, FAR_FLOOR = (msgspec.structs.replace(case, api_latency_ms=API_LATENCY_MS) for case in (FILL, FLOOR))
ALL, IDLE = Case("first fill", regions=REGIONS), Case("not modified", regions=REGIONS)
RATIOS = {FILL: 1.0, Case("first fill", FORGE, latency_ms=50): 1.0, Case("a tenth changed", FORGE): 0.7}


Row = list[str]  # case, goal, measured, the floor under it, whether it is met


def judge_goals(results: Results) -> list[Row]:
    """Return all goals whose cases have been measured."""
    judges: list[Callable[[Results], Row]] = [
        *(partial(judge_ratio, case=case, contestant=FLOW, most=most) for case, most in RATIOS.items()),
        judge_declared,
        partial(judge_more, case=Case("first fill", 7), other=PLAIN, most=0.5, what="plain script"),
        partial(judge_most, contestant=FLOW, case=Case("not modified", FORGE), most=0.5),
        partial(judge_more, case=START, other=NO_TASKS, most=0.3, what="an empty flow's first line"),
        partial(judge_ratio, case=ALL, contestant=UNIVERSE, most=1.1),
        partial(judge_most, contestant=UNIVERSE, case=ALL, most=30, figure="CPU", what=": CPU of the process"),
        partial(judge_most, contestant=UNIVERSE, case=Case("a tenth changed", regions=REGIONS), most=15),
        partial(judge_most, contestant=UNIVERSE, case=IDLE, most=2),
        partial(judge_most, contestant=UNIVERSE, case=IDLE, most=len(REGIONS), figure="HEADs", what=": HEAD requests"),
        partial(
            judge_most, contestant=FLOW, case=FILL, most=0.6, figure="server CPU", what=": CPU of Prefect's server"
        ),
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


def judge_ratio(results: Results, case: Case, contestant: str, most: float) -> Row:
    """Compare a flow's seconds with the plain script's; the floor is the plain script with Prefect's own seconds."""
    flow, plain = results.median(contestant, case), results.median(PLAIN, case)
    floor = 1 + results.median(NO_WORK if contestant == FLOW else NO_TASKS, FLOOR) / plain
    returned = results.median(contestant, case, "returns")
    measured = f"{flow / plain:.2f} × ({flow:.2f} s, plain {plain:.2f} s; the call returns after {returned:.2f} s)"
    return [case.name, f"≤ {most:.2f} × plain", measured, f"{floor:.2f} ×", is_met(flow <= most * plain)]


def judge_declared(results: Results) -> Row:
    """Compare the declared orders of The Forge with the market's own flow."""
    declared, flow = results.median(DECLARED, FILL), results.median(FLOW, FILL)
    measured = f"{declared / flow:.2f} × ({declared:.2f} s, `market_data` {flow:.2f} s)"
    return [f"{FILL.name}, declared", "≤ 1.10 × `market_data`", measured, "", is_met(declared <= 1.1 * flow)]


def judge_more(results: Results, case: Case, other: str, most: float, what: str) -> Row:
    """Judge by how many seconds the flow takes longer than another contestant."""
    flow, least = results.median(FLOW, case), results.median(other, case)
    floor = f"{results.median(NO_WORK, FLOOR):+.2f} s" if other == PLAIN else ""
    measured = f"{flow - least:+.2f} s ({flow:.2f} s, {what} {least:.2f} s)"
    return [case.name, f"≤ {what} + {most} s", measured, floor, is_met(flow - least <= most)]


def judge_most(
    results: Results, contestant: str, case: Case, most: float, figure: str = "seconds", what: str = ""
) -> Row:
    """Judge a figure by a bound; the floor is that of a flow that does nothing."""
    value, unit = results.median(contestant, case, figure), "" if figure == "HEADs" else " s"
    floor = ""
    if figure == "CPU":
        floor = f"{results.median(PLAIN, case, figure):.2f} s, the plain script's"
    elif figure != "HEADs":
        floor = f"{results.median(NO_WORK if figure == 'server CPU' else NO_TASKS, FLOOR, figure):.2f} s"
    measured = f"{value:.{2 if unit else 0}f}{unit}"
    return [case.name + what, f"≤ {most}{unit}", measured, floor, is_met(value <= most)]


def judge_far_api(results: Results) -> Row:
    """Judge a run with a wait added to each call of Prefect's API: the work must not wait for calls of its own."""
    far, work = results.median(NO_WORK, FAR_FLOOR), results.median(FLOW, FILL) - results.median(NO_WORK, FLOOR)
    flow = results.median(FLOW, FAR_FILL)
    measured = f"{flow:.2f} s, allowed {far + work:.2f} s ({far:.2f} s without work, the work {work:.2f} s)"
    return [FAR_FILL.name, "≤ as many task runs + the work", measured, f"{far:.2f} s", is_met(flow <= far + work)]
