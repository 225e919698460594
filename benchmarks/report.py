"""docs/performance.md, from what was measured."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from jinja2 import Environment, StrictUndefined

from benchmarks.cases import PLAIN, Results
from benchmarks.goals import judge_goals

PACKAGES = ("prefect", "httpx", "msgspec", "pandas", "numpy", "boto3", "pydantic", "sqlalchemy", "fastapi")
TEMPLATE = Path(__file__).with_name("performance.md.jinja")
COLUMNS = ("seconds", "× plain", "returns", "warmed up", "CPU", "server CPU", "peak MiB")


def write_report(results: Results) -> str:
    """Return the report as markdown."""
    template = Environment(undefined=StrictUndefined, autoescape=False).from_string(TEMPLATE.read_text())  # noqa: S701
    states = [[case, *row] for case, rows in results.states.items() for row in rows]
    report = template.render(
        date=f"{results.measured_at:%Y-%m-%d}",
        machine="; ".join(f"{name} {value}" for name, value in results.machine.items()),
        goals=goals_table(results),
        figures=figures_table(results),
        states=table(["case", "state", "runs", "from", "to"], states),
    )
    return f"{report}\n"


def goals_table(results: Results) -> str:
    """Return the goals, and whether they are met."""
    return table(["case", "goal", "measured", "floor", "met"], judge_goals(results))


def figures_table(results: Results) -> str:
    """Return the figures of all cases and contestants."""
    rows = []
    for case, contestants in results.measures.items():
        for contestant, figures in contestants.items():
            plain = contestants.get(PLAIN)
            ratio = [median(figures["seconds"]) / median(plain["seconds"])] if plain else []
            cells = [spread((figures | {"× plain": ratio}).get(column, [])) for column in COLUMNS]
            rows.append([case, f"`{contestant}`", *cells])
    return table(["case", "who", *COLUMNS], rows)


def spread(values: list[float]) -> str:
    """Return the median, and the least and the most where there is more than one; nothing of none."""
    if not values:
        return ""
    ends = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
    return f"{median(values):.2f}{ends}"


def table(head: list[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_machine() -> dict[str, str]:
    """Return the machine's size, and the versions of what runs on it."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores, {model[1] if model else 'unknown'}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "store": "DynamoDB Local" if os.environ.get("DYNAMODB_LOCAL") else "ministack",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
