"""docs/performance.md, from what was measured."""

from collections.abc import Callable, Iterable
from statistics import median

from benchmarks.cases import CONCURRENCIES, FLOW, FORGE, LATENCIES_MS, NO_TASKS, PLAIN, Case, Result, Results
from benchmarks.cpu_profile import Shares
from benchmarks.goals import MIB, judge_goals
from benchmarks.plots import LABELS
from benchmarks.words import DEPLOYMENT, INTRODUCTION, LATENCY, PROFILE, SIZES_SAY, STATES, WHAT_FAVOURS_WHOM

PROFILE_LINES = 10
NAMES = LABELS | {"no_tasks": "flow without tasks", "no_work": "as many task runs, without work"}


def write_report(results: Results, images: str) -> str:
    """Return the report as markdown.

    Args:
        results: of a run of the benchmark.
        images: the plots' folder as the report links to it.
    """
    sections: list[Callable[[Results], str]] = [
        goals_section,
        lambda found: sizes_section(found, images),
        lambda found: latency_section(found, images),
        deployment_section,
        lambda found: states_section(found, images),
        profile_section,
    ]
    parts = [INTRODUCTION, setting_section(results), *(section(results) for section in sections), WHAT_FAVOURS_WHOM]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def setting_section(results: Results) -> str:
    """Say when and on what."""
    machine = "; ".join(f"{name} {value}" for name, value in results.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in results.versions.items())
    repeats = max((len(result.measures) for result in results.results), default=0)
    return (
        f"Measured on {results.measured_at:%Y-%m-%d}, each case {repeats} times, of the long ones some less; where no "
        f"range follows a figure, once, so that it is a hint only. Machine: {machine}. Packages: {versions}."
    )


def goals_section(results: Results) -> str:
    """Return the goals."""
    rows = [
        (goal.case, goal.goal, goal.measured, "yes" if goal.is_met else "**no**", "" if goal.is_met else goal.floor)
        for goal in judge_goals(results)
    ]
    return "## Goals\n\n" + table(["case", "goal", "measured", "met", "where not: the floor"], rows)


def sizes_section(results: Results, images: str) -> str:
    """Return all cases but those of latency."""
    rows = [row_of(result, results) for result in results.results if not result.case.is_slow]
    head = ["case", "who", "seconds", "× plain", "CPU seconds", "peak memory, MiB"]
    plot = f"![Seconds, CPU and memory over pages]({images}/performance-sizes.png)"
    return f"## Sizes\n\n{SIZES_SAY.strip()}\n\n{plot}\n\n{table(head, rows)}"


def row_of(result: Result, results: Results) -> tuple[str, ...]:
    """Return a result's row."""
    plain = results.find(PLAIN, result.case)
    ratio = f"{result.median() / plain.median():.2f}" if plain else ""
    return (
        result.case.name,
        NAMES[result.contestant],
        spread(result.values()),
        ratio,
        spread(result.values("cpu_seconds")),
        spread([value / MIB for value in result.values("peak_bytes")], digits=0),
    )


def latency_section(results: Results, images: str) -> str:
    """Return seconds by latency and concurrency."""
    if not any(result.case.is_slow for result in results.results):
        return ""
    rows = [latency_row(results, contestant, latency) for latency in LATENCIES_MS for contestant in (PLAIN, FLOW)]
    head = ["added to each answer", "who", *(f"{at_once} at once" for at_once in CONCURRENCIES)]
    plot = f"![Seconds over concurrency]({images}/performance-latency.png)"
    return f"## Latency\n\n{LATENCY.strip()}\n\n{plot}\n\n{table(head, rows)}"


def latency_row(results: Results, contestant: str, latency_ms: int) -> tuple[str, ...]:
    """Return a contestant's seconds by concurrency."""
    found = [results.find(contestant, Case("first fill", FORGE, latency_ms, at_once)) for at_once in CONCURRENCIES]
    return (f"{latency_ms} ms", NAMES[contestant], *(spread(result.values()) if result else "" for result in found))


def deployment_section(results: Results) -> str:
    """Return what a run of the deployment takes."""
    if not results.deployments:
        return ""
    names = {FLOW: "market-data/region, 433 pages, first fill", NO_TASKS: "an empty flow"}
    rows = [(names[contestant], spread(seconds)) for contestant, seconds in results.deployments.items()]
    return f"## Deployment\n\n{DEPLOYMENT.strip()}\n\n{table(['deployment', 'seconds'], rows)}"


def states_section(results: Results, images: str) -> str:
    """Return when each state was at work."""
    rows = [
        (name, span.state, str(span.task_runs), f"{span.begun:.2f}", f"{span.ended:.2f}")
        for name, spans in results.spans.items()
        for span in spans
    ]
    plot = f"![States over time]({images}/performance-states.png)"
    return f"## Where the time goes\n\n{STATES.strip()}\n\n{plot}\n\n" + table(
        ["case", "state", "runs", "from", "to"], rows
    )


def profile_section(results: Results) -> str:
    """Return the CPU profiles."""
    parts = [profile_table(results, way) for way in ("packages", "steps", "functions")]
    return f"## CPU profile\n\n{PROFILE.strip()}\n\n" + "\n\n".join(parts) if results.profiles else ""


def profile_table(results: Results, way: str) -> str:
    """Return the largest shares of CPU, each contestant's beside the others'."""
    shares: dict[str, Shares] = {name: getattr(profile, way) for name, profile in results.profiles.items()}
    most = {name: max(of.get(name, 0.0) for of in shares.values()) for of in shares.values() for name in of}
    largest = sorted(most, key=lambda name: -most[name])[:PROFILE_LINES]
    rows = [(f"`{name}`", *(f"{of.get(name, 0.0) * 1000:.0f}" for of in shares.values())) for name in largest]
    rows.append(("all", *(f"{sum(of.values()) * 1000:.0f}" for of in shares.values())))
    return table([f"CPU by {way[:-1]}, ms", *(NAMES[name] for name in shares)], rows)


def spread(values: list[float], digits: int = 2) -> str:
    """Return the median, and the least and the most where there is more than one."""
    low, middle, high = (round(value, digits) + 0.0 for value in (min(values), median(values), max(values)))  # no -0
    ends = f" ({low:.{digits}f}–{high:.{digits}f})" if len(values) > 1 else ""
    return f"{middle:.{digits}f}{ends}"


def table(head: list[str], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
