"""What a run of the universe took: CPU by part, requests to Prefect's API, growth of its database."""

import re
import time
from collections import Counter
from collections.abc import Iterable

import msgspec

from benchmarks.processes import machine_seconds
from benchmarks.report import table
from benchmarks.scale.topology import Topology

REQUEST = re.compile(r'"(?:GET|POST|PUT|PATCH|DELETE|HEAD) /api/\S* HTTP/1\.1" \d{3}')
MIB = 2**20
LARGEST = 8  # relations that are shown
COUNTED = ("flow_run", "task_run", "events", "log", "artifact")
PARTS = {  # of the CPU, by their head in the table
    "CPU s: workers and runs": "workers",
    "API": "api",
    "services": "services",
    "PostgreSQL": "postgres",
    "Redis": "redis",
    "store": "store",
    "market": "market",
    "other programs": "others",
}


class Figures(msgspec.Struct):
    """What has been used so far, or between two moments."""

    seconds: float
    cpu_seconds: dict[str, float]  # by part
    requests: int  # that Prefect's API servers have answered
    database_bytes: int
    rows: Counter[str]  # of what Prefect keeps most of, by relation
    relation_bytes: Counter[str]  # indexes included

    def since(self, before: "Figures") -> "Figures":
        """Return what has been used since."""
        return Figures(
            self.seconds - before.seconds,
            {part: seconds - before.cpu_seconds.get(part, 0.0) for part, seconds in self.cpu_seconds.items()},
            self.requests - before.requests,
            self.database_bytes - before.database_bytes,
            self.rows - before.rows,
            self.relation_bytes - before.relation_bytes,
        )


class Result(msgspec.Struct):
    """What runs of the universe took, and came to."""

    workers: int
    regions: int
    pages: int
    records: int
    rounds: list[Counter[str]]  # flow runs by their last state, one a run of the universe
    kills: list[str]
    used: Figures
    database_bytes: int  # at the end


def take_figures(topology: Topology) -> Figures:
    """Return what has been used so far."""
    cpu: dict[str, float] = {}
    for name, seconds in topology.used_seconds().items():
        part = name.split("-")[0].replace("worker", "workers")  # market-0-0ms, worker-1
        cpu[part] = cpu.get(part, 0.0) + seconds
    cpu["others"] = machine_seconds() - sum(cpu.values())
    query = topology.postgres.query
    # pg_stat's own counts of rows come late; of these tables an exact count takes no time.
    rows = {name: int(query(f"SELECT count(*) FROM {name}")[0][0]) for name in COUNTED}  # noqa: S608 (our own names)
    relations = query("SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables")
    size = int(query("SELECT pg_database_size(current_database())")[0][0])
    logs = topology.servers.logs.glob("api*.log")
    requests = sum(count_lines(log.read_text(errors="replace").splitlines()) for log in logs)
    sizes = Counter({name: int(number) for name, number in relations})
    return Figures(time.monotonic(), cpu, requests, size, Counter(rows), sizes)


def count_lines(lines: Iterable[str]) -> int:
    """Return how many lines of an access log are answers of the API; those of web sockets and others do not count."""
    return sum(bool(REQUEST.search(line)) for line in lines)


def describe(result: Result) -> str:
    """Return a result as text: a table in markdown, what became of runs, what was killed, what has grown."""
    used = result.used
    columns = {
        "workers": f"{result.workers}",
        "rounds": f"{len(result.rounds)}",
        "seconds": f"{used.seconds:.0f}",
        "pages/s": f"{result.pages / used.seconds:.1f}",
        **{head: f"{used.cpu_seconds[part]:.0f}" for head, part in PARTS.items()},
        "API requests": f"{used.requests}",
        "database, MiB": f"{result.database_bytes / MIB:.1f}",
        "grown by, MiB": f"{used.database_bytes / MIB:.1f}",
    }
    largest = Counter({name: size // 1024 for name, size in used.relation_bytes.most_common(LARGEST)})
    return "\n".join(
        [
            f"{result.regions} regions, {result.pages} pages, {result.records} records: all tables exact",
            table(list(columns), [tuple(columns.values())]),
            *(f"round {number}: {list_counts(states)}" for number, states in enumerate(result.rounds, 1)),
            *result.kills,
            f"rows: {list_counts(used.rows)}",
            f"KiB: {list_counts(largest)}",
        ]
    )


def list_counts(counts: "Counter[str]") -> str:
    """Return counts in words, the largest first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
