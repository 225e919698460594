"""What was set out to be reached, what was, and where not, what the floor is."""

from collections.abc import Callable

import msgspec

from benchmarks.cases import FLOW, FORGE, NO_TASKS, NO_WORK, PLAIN, QUIET, SIZES, UNSEEN, Case, Results

LARGEST = SIZES[-1]
MIB = 1024**2


class Goal(msgspec.Struct, frozen=True):
    """A goal, and how near the measures come."""

    case: str
    goal: str
    measured: str
    is_met: bool
    floor: str = ""  # why it is not met, if it is not


def judge_goals(results: Results) -> list[Goal]:
    """Return all goals whose cases have been measured."""
    judges: list[Callable[[Results], Goal | None]] = [
        lambda found: judge_ratio(found, Case("first fill", FORGE), 1.15),
        lambda found: judge_ratio(found, Case("steady state", FORGE), 0.85),
        lambda found: judge_ratio(found, Case("first fill", FORGE, latency_ms=50), 1.05),
        lambda found: judge_ratio(found, Case("first fill", FORGE, latency_ms=200), 1.05),
        lambda found: judge_ratio(found, Case("first fill", LARGEST), 1.10),
        judge_small,
        judge_not_modified,
        judge_memory,
        judge_memory_an_order,
        judge_linear,
        judge_deployment,
        judge_cpu,
        lambda found: judge_sight(found, 7, "< 0.3 s", lambda more, _part: more < 0.3),
        lambda found: judge_sight(found, FORGE, "< 10 %", lambda _more, part: part < 0.1),
    ]
    return [goal for judge in judges if (goal := judge(results))]


def judge_ratio(results: Results, case: Case, most: float) -> Goal | None:
    """Compare the flow's seconds with the plain script's."""
    flow = results.find(FLOW, case)
    plain = results.find(PLAIN, case)
    if not (flow and plain):
        return None
    ratio = flow.median() / plain.median()
    quiet = without_heartbeats(results, case, lambda seconds: f"{seconds / plain.median():.2f} × ({seconds:.2f} s)")
    return Goal(
        flow.case.name,
        f"≤ {most:.2f} × plain",
        f"{ratio:.2f} × ({flow.median():.2f} s, plain {plain.median():.2f} s)",
        ratio <= most,
        f"{quiet}; the task runs alone take {results.floor(NO_WORK):.2f} s",
    )


def without_heartbeats(results: Results, case: Case, say: Callable[[float], str]) -> str:
    """Tell what the flow takes where Prefect sends no heartbeats; nothing if that was not measured."""
    quiet = results.find(QUIET, case)
    return f"without heartbeats {say(quiet.median())}" if quiet else ""


def judge_small(results: Results) -> Goal | None:
    """Compare the seconds of a small region."""
    flow, plain = results.find(FLOW, Case("first fill", 7)), results.find(PLAIN, Case("first fill", 7))
    if not (flow and plain):
        return None
    ratio, more = flow.median() / plain.median(), flow.median() - plain.median()
    quiet = without_heartbeats(
        results,
        flow.case,
        lambda seconds: f"{seconds / plain.median():.2f} ×, {seconds - plain.median():+.2f} s",
    )
    return Goal(
        flow.case.name,
        "≤ 2 × plain, and at most 0.5 s more",
        f"{ratio:.2f} ×, {more:+.2f} s",
        ratio <= 2 and more <= 0.5,
        f"{quiet}; a flow run with no task in it takes {results.floor(NO_TASKS):.2f} s",
    )


def judge_not_modified(results: Results) -> Goal | None:
    """Judge a run that has nothing to do."""
    flow = results.find(FLOW, Case("not modified", FORGE))
    if not flow:
        return None
    quiet = without_heartbeats(results, flow.case, lambda seconds: f"{seconds:.2f} s")
    floor = f"{quiet}; a flow run with no task in it takes {results.floor(NO_TASKS):.2f} s"
    return Goal("not modified", "≤ 0.5 s", f"{flow.median():.2f} s", flow.median() <= 0.5, floor)


def judge_memory(results: Results) -> Goal | None:
    """Compare the peak of resident memory above what was resident before."""
    flow, plain = results.find(FLOW, Case("first fill", FORGE)), results.find(PLAIN, Case("first fill", FORGE))
    if not (flow and plain):
        return None
    peaks = flow.median("peak_bytes"), plain.median("peak_bytes")
    ratio = peaks[0] / peaks[1]
    measured = f"{ratio:.2f} × ({peaks[0] / MIB:.0f} MiB, plain {peaks[1] / MIB:.0f} MiB)"
    return Goal("peak memory, 433 pages", "≤ 1.5 × plain", measured, ratio <= 1.5, "see the next line")


def judge_memory_an_order(results: Results) -> Goal | None:
    """Judge the peak for the largest size, where what is there anyway counts least."""
    flow = results.find(FLOW, Case("first fill", LARGEST))
    if not flow:
        return None
    each = flow.median("peak_bytes") / results.orders[LARGEST]
    floor = (
        "33 bytes an order, until all are there, and 8 more while they are looked through for orders that come twice"
    )
    return Goal(f"peak memory, {LARGEST} pages", "≤ 64 bytes an order", f"{each:.0f} bytes", each <= 64, floor)


def judge_linear(results: Results) -> Goal | None:
    """Judge how far 433 pages lie from the straight line between 50 and 1,686."""
    off, quiet = leave_line(results, FLOW), leave_line(results, QUIET)
    if off is None or quiet is None:
        return None
    return Goal(
        "50 to 1,686 pages",
        "linear within 10 %",
        f"433 pages are {off:+.0%} off the line",
        abs(off) <= 0.1,
        f"without heartbeats {quiet:+.0%}",
    )


def leave_line(results: Results, contestant: str) -> float | None:
    """Return by which part 433 pages lie above the straight line between 50 and 1,686; None if one was not measured."""
    found = [results.find(contestant, Case("first fill", pages)) for pages in (50, FORGE, LARGEST)]
    seconds = [result.median() for result in found if result]
    if len(seconds) < len(found):
        return None
    line = seconds[0] + (seconds[2] - seconds[0]) * (FORGE - 50) / (LARGEST - 50)
    return seconds[1] / line - 1


def judge_deployment(results: Results) -> Goal | None:
    """Judge what a user waits for a run of the deployment."""
    flow = results.find(FLOW, Case("first fill", FORGE))
    if not (flow and results.deployments):
        return None
    runs = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in results.deployments.items()}
    most = 1.3 * runs[NO_TASKS] + flow.median()
    return Goal(
        "deployment run, 433 pages",
        "≤ 1.3 × an empty flow's + the work",
        f"{runs[FLOW]:.1f} s, allowed {most:.1f} s (an empty flow's {runs[NO_TASKS]:.1f} s, the work "
        f"{flow.median():.1f} s)",
        runs[FLOW] <= most,
        "the difference is imports, heartbeat and kept pages: see below",
    )


def judge_cpu(results: Results) -> Goal | None:
    """Compare the CPU that the process takes for a page."""
    flow, plain = results.find(FLOW, Case("first fill", FORGE)), results.find(PLAIN, Case("first fill", FORGE))
    if not (flow and plain):
        return None
    each = [result.median("cpu_seconds") / FORGE * 1000 for result in (flow, plain)]
    ratio = each[0] / each[1]
    floor = results.find(NO_WORK, Case("floor", 1))
    least = 1 + floor.median("cpu_seconds") / plain.median("cpu_seconds") if floor else 1.0
    return Goal(
        "CPU a page, 433 pages",
        "≤ 1.25 × plain",
        f"{ratio:.2f} × ({each[0]:.1f} ms, plain {each[1]:.1f} ms)",
        ratio <= 1.25,
        f"{least:.2f} ×: plain, and as many task runs with nothing in them",
    )


def judge_sight(results: Results, pages: int, goal: str, is_met: Callable[[float, float], bool]) -> Goal | None:
    """Judge what tags, progress, events, artifacts and pictures cost a run that sends no heartbeats."""
    case = Case("first fill", pages)
    seen, unseen = results.find(QUIET, case), results.find(UNSEEN, case)
    if not (seen and unseen):
        return None
    more = seen.median() - unseen.median()
    part = more / unseen.median()
    measured = f"{more:+.2f} s, {part:+.0%} ({seen.median():.2f} s, unseen {unseen.median():.2f} s)"
    return Goal(f"what a run shows of itself, {pages} pages", goal, measured, is_met(more, part), "its own work")
