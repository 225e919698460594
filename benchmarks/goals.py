"""The goals, and whether the measured cases meet them."""

from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from benchmarks.cases import API_LATENCY_MS, FORGE, REGIONS, Case, Contestant, Results

FILL, FLOOR = Case("first fill", FORGE), Case("Prefect alone")
SLOW_FILL, SLOW_FLOOR = (msgspec.structs.replace(case, api_latency_ms=API_LATENCY_MS) for case in (FILL, FLOOR))
ALL, IDLE = Case("first fill", regions=REGIONS), Case("not modified", regions=REGIONS)


class Verdict(NamedTuple):
    """Whether a goal is met, and the cells of its row."""

    case: str
    goal: str
    measured: str
    floor: str  # the least that can be reached; empty if there is none
    is_met: bool


def check_goals(results: Results) -> list[list[str]]:
    """Return the table rows of all goals whose cases were measured."""
    goals: list[tuple[Any, ...]] = [
        (check_ratio, FILL, "market_data", "plain", 1.0),
        (check_ratio, Case("first fill", FORGE, latency_ms=50), "market_data", "plain", 1.0),
        (check_ratio, Case("a tenth changed", FORGE), "market_data", "plain", 0.7),
        (check_ratio, FILL, "paged_api", "market_data", 1.1),
        (check_difference, Case("first fill", 7), "plain", 0.5),
        (check_seconds, Case("not modified", FORGE), "market_data", "no_tasks", 0.5),
        (check_difference, Case("process start"), "no_tasks", 0.3),
        (check_ratio, ALL, "universe", "plain", 1.1),
        (check_seconds, ALL, "universe", "plain", 30, "CPU"),
        (check_seconds, Case("a tenth changed", regions=REGIONS), "universe", "no_tasks", 15),
        (check_seconds, IDLE, "universe", "no_tasks", 2),
        (check_head_requests,),
        (check_seconds, FILL, "market_data", "no_work", 0.6, "server CPU"),
        (check_slow_api,),
    ]
    rows = []
    for check, *arguments in goals:
        with suppress(KeyError):  # not measured
            *cells, is_met = check(results, *arguments)
            rows.append([*cells, "yes" if is_met else "**no**"])
    return rows


def check_ratio(results: Results, case: Case, contestant: Contestant, base: Contestant, most: float) -> Verdict:
    """Check a flow's seconds relative to another program's; above the plain script, Prefect's own are the floor."""
    flow, other = results.median(contestant, case), results.median(base, case)
    returned = results.median(contestant, case, "returns")
    name, floor = case.name, ""
    if base != "plain":
        name += f", `{contestant}`"
    elif case.kind == "first fill":
        alone = results.median("no_tasks" if contestant == "universe" else "no_work", FLOOR)
        floor = f"{1 + alone / other:.2f} ×"
    measured = f"{flow / other:.2f} × ({flow:.2f} s, `{base}` {other:.2f} s; the call returns after {returned:.2f} s)"
    return Verdict(name, f"≤ {most:.2f} × `{base}`", measured, floor, flow <= most * other)


def check_difference(results: Results, case: Case, base: Contestant, most: float) -> Verdict:
    """Check how many seconds `market_data` takes longer than another program."""
    flow, other = results.median("market_data", case), results.median(base, case)
    floor = f"{results.median('no_work', FLOOR):+.2f} s" if base == "plain" else ""
    measured = f"{flow - other:+.2f} s ({flow:.2f} s, `{base}` {other:.2f} s)"
    return Verdict(case.name, f"≤ `{base}` + {most} s", measured, floor, flow - other <= most)


def check_seconds(
    results: Results, case: Case, contestant: Contestant, base: Contestant, most: float, figure: str = "seconds"
) -> Verdict:
    """Check seconds, or CPU seconds, by an upper bound; the floor is those of a program that does less."""
    value = results.median(contestant, case, figure)
    floor = results.median(base, case if base == "plain" else FLOOR, figure)
    name = case.name if figure == "seconds" else f"{case.name}: {figure}"
    return Verdict(name, f"≤ {most} s", f"{value:.2f} s", f"{floor:.2f} s, `{base}`", value <= most)


def check_head_requests(results: Results) -> Verdict:
    """Check the requests of a run in which no region was modified: one per region."""
    count, most = results.median("universe", IDLE, "HEAD requests"), len(REGIONS)
    return Verdict(f"{IDLE.name}: HEAD requests", f"≤ {most}", f"{count:.0f}", "", count <= most)


def check_slow_api(results: Results) -> Verdict:
    """Check a first fill with a slower Prefect API: only the task runs themselves may wait for it."""
    work = results.median("market_data", FILL) - results.median("no_work", FLOOR)
    flow, alone = results.median("market_data", SLOW_FILL), results.median("no_work", SLOW_FLOOR)
    measured = f"{flow:.2f} s, allowed {alone + work:.2f} s (`no_work` {alone:.2f} s, the work {work:.2f} s)"
    return Verdict(SLOW_FILL.name, "≤ `no_work` + the work", measured, f"{alone:.2f} s", flow <= alone + work)
