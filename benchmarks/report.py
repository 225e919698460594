"""docs/performance.md, from what was measured."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from jinja2 import Environment, StrictUndefined

from benchmarks import cases
from benchmarks.cases import Results
from benchmarks.goals import judge_goals

PACKAGES = ("prefect", "httpx", "msgspec", "pandas", "numpy", "boto3", "pydantic", "sqlalchemy", "fastapi")
TEMPLATE = Path(__file__).with_name("performance.md.jinja")
NAMES = {
    cases.PLAIN: "plain script",
    cases.FLOW: "market-data",
    cases.UNIVERSE: "universe",
    cases.IDIOMATIC: "a task a page",
    cases.NO_TASKS: "an empty flow",
    cases.NO_WORK: "as many task runs, without work",
}
COLUMNS = {  # head, and digits after the point, by figure
    "seconds": ("seconds", 2),
    "ratio": ("× plain", 2),
    "returned_seconds": ("returns", 2),
    "warm_seconds": ("warmed up", 2),
    "cpu_seconds": ("CPU seconds", 2),
    "server_seconds": ("server's CPU", 2),
    "peak_mib": ("peak memory, MiB", 0),
}


def write_report(results: Results) -> str:
    """Return the report as markdown."""
    template = Environment(undefined=StrictUndefined, autoescape=False).from_string(TEMPLATE.read_text())  # noqa: S701
    report = template.render(
        date=f"{results.measured_at:%Y-%m-%d}",
        machine="; ".join(f"{name} {value}" for name, value in results.machine.items()),
        goals=goals_table(results),
        figures=figures_table(results),
        states=states_table(results),
    )
    return f"{report}\n"


def goals_table(results: Results) -> str:
    """Return the goals, and whether they are met."""
    goals = judge_goals(results)
    rows = [(goal.case, goal.goal, goal.measured, "yes" if goal.is_met else "**no**") for goal in goals]
    return table(["case", "goal", "measured", "met"], rows)


def figures_table(results: Results) -> str:
    """Return the figures of all cases and contestants."""
    rows = []
    for case, contestants in results.measures.items():
        plain = contestants.get(cases.PLAIN)
        for contestant, figures in contestants.items():
            ratio = {"ratio": [median(figures["seconds"]) / median(plain["seconds"])]} if plain else {}
            cells = [spread((figures | ratio).get(name, []), digits) for name, (_, digits) in COLUMNS.items()]
            rows.append([case, NAMES[contestant], *cells])
    return table(["case", "who", *(head for head, _ in COLUMNS.values())], rows)


def states_table(results: Results) -> str:
    """Return when each state was at work."""
    rows = [
        (name, span.state, str(span.task_runs), f"{span.start:.2f}", f"{span.end:.2f}")
        for name, spans in results.spans.items()
        for span in spans
    ]
    return table(["case", "state", "runs", "from", "to"], rows)


def spread(values: list[float], digits: int) -> str:
    """Return the median, and the least and the most where there is more than one; nothing of none."""
    if not values:
        return ""
    low, middle, high = (round(value, digits) + 0.0 for value in (min(values), median(values), max(values)))  # no -0
    ends = f" ({low:.{digits}f}–{high:.{digits}f})" if len(values) > 1 else ""
    return f"{middle:.{digits}f}{ends}"


def table(head: list[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_machine() -> dict[str, str]:
    """Return the machine's size, and the versions of what runs on it."""
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores, {read_first('/proc/cpuinfo', 'model name') or 'unknown'}",
        "memory": f"{int((read_first('/proc/meminfo', 'MemTotal') or '0').split()[0]) / 1024**2:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "store": "DynamoDB Local" if os.environ.get("DYNAMODB_LOCAL") else "ministack",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def read_first(file: str, name: str) -> str | None:
    """Return the value of the first line `name: value` of one of the kernel's files."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(file).read_text(), re.MULTILINE)
    return found[1] if found else None
