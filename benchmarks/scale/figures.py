"""The figures of a run of the universe: CPU seconds by part, requests to Prefect's API, growth of its database."""

import re
import time
from collections import Counter
from pathlib import Path

import msgspec

from benchmarks.report import table
from benchmarks.scale.topology import Topology
from deployments.local.processes import TICKS

# A line of an access log for a response of the API; those for web sockets and pages of the UI are others.
REQUEST = re.compile(r'"(?:GET|POST|PUT|PATCH|DELETE|HEAD) /api/\S* HTTP/1\.1" \d{3}')
PARTS = ("worker", "api", "services", "postgres", "redis", "store", "market", "others")  # in the table, by CPU

Figures = dict[str, float]  # by name: `seconds`, `requests`, `cpu api`, `rows events`, `bytes events`, …


class Result(msgspec.Struct):
    """The result of one or more rounds: runs of the universe."""

    workers: int
    regions: int
    pages: int
    records: int
    rounds: list[Counter[str]]  # flow runs by final state
    kills: list[str]
    used: Figures
    database_bytes: float  # at the end


def take_figures(topology: Topology) -> Figures:
    """Return the figures since the start."""
    cpu = dict.fromkeys(PARTS, 0.0)
    for name, seconds in topology.used_seconds().items():
        cpu[name.split("-")[0]] += seconds  # market-0-0ms, worker-1
    cpu["others"] = machine_seconds() - sum(cpu.values())
    query, logs = topology.query, topology.logs.glob("api*.log")
    # Counted exactly, which is fast for these tables: the counts of pg_stat_user_tables lag behind.
    counted = ("flow_run", "task_run", "events", "log", "artifact")
    rows = {f"rows {name}": query(f"SELECT count(*) FROM {name}")[0][0] for name in counted}  # noqa: S608 (ours)
    relations = query("SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables")
    return {
        "seconds": time.monotonic(),
        **{f"cpu {part}": seconds for part, seconds in cpu.items()},
        "requests": sum(len(REQUEST.findall(log.read_text(errors="replace"))) for log in logs),
        "database": query("SELECT pg_database_size(current_database())")[0][0],
        **rows,
        **{f"bytes {name}": size for name, size in relations},  # with indexes
    }


def machine_seconds() -> float:
    """Return the CPU seconds of all processes of this machine (Linux)."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest)) / TICKS


def subtract(after: Figures, before: Figures) -> Figures:
    """Return the differences between figures; a figure that is new counts from 0."""
    return {name: value - before.get(name, 0) for name, value in after.items()}


def describe(result: Result) -> str:
    """Return a result as text: a Markdown table, then final states by round, kills, and the database's growth."""
    used = result.used
    columns = {
        "workers": f"{result.workers}",
        "rounds": f"{len(result.rounds)}",
        "seconds": f"{used['seconds']:.0f}",
        "pages/s": f"{result.pages / used['seconds']:.1f}",
        **{f"CPU s: {part}": f"{used[f'cpu {part}']:.0f}" for part in PARTS},
        "API requests": f"{used['requests']}",
        "database, MiB": f"{result.database_bytes / 2**20:.1f}",
        "growth, MiB": f"{used['database'] / 2**20:.1f}",
    }
    lines = [
        f"{result.regions} regions, {result.pages} pages, {result.records} records: all tables exact",
        table(list(columns), [tuple(columns.values())]),
        *(f"round {number}: {list_counts(states)}" for number, states in enumerate(result.rounds, 1)),
        *result.kills,
        f"rows: {list_counts(pick(used, 'rows '))}",
        f"KiB: {list_counts(pick(used, 'bytes ', 1024))}",
    ]
    return "\n".join(lines)


def pick(figures: Figures, prefix: str, unit: int = 1) -> dict[str, int]:
    """Return the positive figures whose names start with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): int(n) // unit for name, n in figures.items() if name.startswith(prefix) and n > 0
    }


def list_counts(counts: dict[str, int]) -> str:
    """Return the eight largest counts as text, the largest first."""
    return ", ".join(f"{count} {name}" for name, count in Counter(counts).most_common(8))
