"""What a run of the universe took: CPU by part, requests to Prefect's API, growth of its database."""

import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from benchmarks.report import table
from benchmarks.scale.topology import Topology
from deployments.local.processes import TICKS

REQUEST = re.compile(r'"(?:GET|POST|PUT|PATCH|DELETE|HEAD) /api/\S* HTTP/1\.1" \d{3}')
COUNTED = ("flow_run", "task_run", "events", "log", "artifact")
PARTS = ("worker", "api", "services", "postgres", "redis", "store", "market", "others")  # whose CPU is shown


Figures = dict[str, float]  # seconds, requests, bytes, …; of parts of one kind by names such as `cpu api`


class Result(msgspec.Struct):
    """What runs of the universe took, and came to."""

    workers: int
    regions: int
    pages: int
    records: int
    rounds: list[Counter[str]]  # flow runs by their last state, one a run of the universe
    kills: list[str]
    used: Figures
    database_bytes: float  # at the end


def take_figures(topology: Topology) -> Figures:
    """Return what has been used so far."""
    cpu: dict[str, float] = {}
    for name, seconds in topology.used_seconds().items():
        part = name.split("-")[0]  # of market-0-0ms, worker-1
        cpu[part] = cpu.get(part, 0.0) + seconds
    cpu["others"] = machine_seconds() - sum(cpu.values())
    query, logs = topology.postgres.query, topology.servers.logs.glob("api*.log")
    # pg_stat's own counts of rows come late; of these tables an exact count takes no time.
    rows = {f"rows {name}": int(query(f"SELECT count(*) FROM {name}")[0][0]) for name in COUNTED}  # noqa: S608 (ours)
    relations = query("SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables")
    return {
        "seconds": time.monotonic(),
        **{f"cpu {part}": seconds for part, seconds in cpu.items()},
        "requests": sum(count_lines(log.read_text(errors="replace").splitlines()) for log in logs),
        "database": int(query("SELECT pg_database_size(current_database())")[0][0]),
        **rows,
        **{f"bytes {name}": int(size) for name, size in relations},  # with indexes
    }


def machine_seconds() -> float:
    """Return the CPU seconds that all processes of this machine together have taken (Linux)."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest)) / TICKS


def subtract(after: Figures, before: Figures) -> Figures:
    """Return what has been used between two moments."""
    return {name: value - before.get(name, 0) for name, value in after.items()}


def count_lines(lines: Iterable[str]) -> int:
    """Return how many lines of an access log are answers of the API; those of web sockets and others do not count."""
    return sum(bool(REQUEST.search(line)) for line in lines)


def describe(result: Result) -> str:
    """Return a result as text: a table in markdown, what became of runs, what was killed, what has grown."""
    used = result.used
    columns = {
        "workers": f"{result.workers}",
        "rounds": f"{len(result.rounds)}",
        "seconds": f"{used['seconds']:.0f}",
        "pages/s": f"{result.pages / used['seconds']:.1f}",
        **{f"CPU s: {part}": f"{used[f'cpu {part}']:.0f}" for part in PARTS},
        "API requests": f"{used['requests']}",
        "database, MiB": f"{result.database_bytes / 2**20:.1f}",
        "grown by, MiB": f"{used['database'] / 2**20:.1f}",
    }
    return "\n".join(
        [
            f"{result.regions} regions, {result.pages} pages, {result.records} records: all tables exact",
            table(list(columns), [tuple(columns.values())]),
            *(f"round {number}: {list_counts(states)}" for number, states in enumerate(result.rounds, 1)),
            *result.kills,
            f"rows: {list_counts(pick(used, 'rows '))}",
            f"KiB: {list_counts(pick(used, 'bytes ', 1024))}",
        ]
    )


def pick(figures: Figures, kind: str, unit: int = 1) -> dict[str, int]:
    """Return the figures of one kind that are not nothing, by the name of their part."""
    return {name.removeprefix(kind): int(n) // unit for name, n in figures.items() if name.startswith(kind) and n > 0}


def list_counts(counts: dict[str, int]) -> str:
    """Return the largest counts in words, the largest first."""
    return ", ".join(f"{count} {name}" for name, count in Counter(counts).most_common(8))
