"""Render docs/performance.md from the results."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from jinja2 import Environment, StrictUndefined

from benchmarks.cases import Results
from benchmarks.goals import check_goals

PACKAGES = ("prefect", "httpx", "msgspec", "pandas", "numpy", "boto3", "pydantic", "sqlalchemy", "fastapi")
TEMPLATE = Path(__file__).with_name("performance.md.jinja")
COLUMNS = ("seconds", "× plain", "returns", "warmed up", "CPU", "server CPU", "peak MiB")


def render_report(results: Results) -> str:
    """Return docs/performance.md."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 (markdown)
    states = [[case, *row] for case, rows in results.states.items() for row in rows]
    return environment.from_string(TEMPLATE.read_text()).render(
        date=f"{results.measured_at:%Y-%m-%d}",
        machine="; ".join(f"{name} {value}" for name, value in results.machine.items()),
        goals=goals_table(results),
        figures=figures_table(results),
        states=table(["case", "state", "runs", "from", "to"], states),
    )


def goals_table(results: Results) -> str:
    """Return the goals as a table."""
    return table(["case", "goal", "measured", "floor", "met"], check_goals(results))


def figures_table(results: Results) -> str:
    """Return the figures of all cases and contestants as a table."""
    rows = []
    for case, contestants in results.measures.items():
        for contestant, figures in contestants.items():
            plain = contestants.get("plain")
            ratio = [median(figures["seconds"]) / median(plain["seconds"])] if plain else []
            cells = [format_median((figures | {"× plain": ratio}).get(column, [])) for column in COLUMNS]
            rows.append([case, f"`{contestant}`", *cells])
    return table(["case", "program", *COLUMNS], rows)


def format_median(values: list[float]) -> str:
    """Return the median, with the range if there are several values; empty without any."""
    if not values:
        return ""
    ends = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
    return f"{median(values):.2f}{ends}"


def table(head: list[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_machine() -> dict[str, str]:
    """Return the machine's size, and the versions of its software."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores, {model[1] if model else 'unknown'}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "store": "DynamoDB Local" if os.environ.get("DYNAMODB_LOCAL") else "ministack",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
