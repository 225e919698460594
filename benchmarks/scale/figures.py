"""What a run of the universe took: CPU by part, requests to Prefect's API, growth of its database."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable

import msgspec

from benchmarks.report import table
from benchmarks.scale.process_tree import machine_seconds
from benchmarks.scale.topology import FOLDER, Topology

REQUEST = re.compile(r'"(?:GET|POST|PUT|PATCH|DELETE|HEAD) /api/\S* HTTP/1\.1" \d{3}')
MIB = 2**20
LARGEST = 8  # relations that are shown


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
            difference(self.rows, before.rows),
            difference(self.relation_bytes, before.relation_bytes),
        )


class Result(msgspec.Struct):
    """What runs of the universe took, and came to."""

    workers: int
    regions: int
    pages: int
    records: int
    rounds: list[Counter[str]]  # runs of regions by their last state, one a run of the universe
    kills: list[str]
    used: Figures
    database_bytes: int  # at the end


def difference(counts: "Counter[str]", before: "Counter[str]") -> "Counter[str]":
    """Return by how much each count has grown."""
    return Counter({name: count - before[name] for name, count in counts.items()})


def take_figures(topology: Topology) -> Figures:
    """Return what has been used so far."""
    cpu: dict[str, float] = defaultdict(float)
    for name, seconds in topology.used_seconds().items():
        cpu["workers" if name in topology.workers else name] += seconds
    cpu["others"] = machine_seconds() - sum(cpu.values())
    # pg_stat's own counts of rows come late; of these tables an exact count takes no time.
    rows = {name: count_rows(topology, name) for name in ("flow_run", "task_run", "events", "log", "artifact")}
    size = int(topology.postgres.query("SELECT pg_database_size(current_database())")[0][0])
    return Figures(time.monotonic(), cpu, count_requests(), size, Counter(rows), measure_relations(topology))


def count_rows(topology: Topology, relation: str) -> int:
    """Return the number of a relation's rows."""
    return int(topology.postgres.query(f"SELECT count(*) FROM {relation}")[0][0])  # noqa: S608 (our own names)


def measure_relations(topology: Topology) -> "Counter[str]":
    """Return the bytes of Prefect's tables, with their indexes."""
    statement = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"
    return Counter({name: int(size) for name, size in topology.postgres.query(statement)})


def count_requests() -> int:
    """Return how many requests the API servers have answered, by their access logs: uvicorn writes a line for each."""
    logs = (FOLDER / "logs").glob("api.*.log")
    return sum(count_lines(log.read_text(errors="replace").splitlines()) for log in logs)


def count_lines(lines: Iterable[str]) -> int:
    """Return how many lines of an access log tell of an answer; those of web sockets and all others do not count."""
    return sum(bool(REQUEST.search(line)) for line in lines)


def describe(result: Result) -> str:
    """Return a result as text: a table in markdown, what became of runs, what was killed, what has grown."""
    used, columns = result.used, list_columns(result)
    largest = used.relation_bytes.most_common(LARGEST)
    return "\n".join(
        [
            f"{result.regions} regions, {result.pages} pages, {result.records} records: all tables exact",
            table(list(columns), [tuple(columns.values())]),
            *(f"round {number}: {list_counts(states)}" for number, states in enumerate(result.rounds, 1)),
            *result.kills,
            f"rows: {list_counts(used.rows)}",
            f"KiB: {list_counts(Counter({name: size // 1024 for name, size in largest}))}",
        ]
    )


def list_counts(counts: "Counter[str]") -> str:
    """Return counts in words, the largest first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def list_columns(result: Result) -> dict[str, str]:
    """Return what the table says, by the heads of its columns."""
    used = result.used
    cpu = {
        "CPU s: workers and runs": "workers",
        "API": "api",
        "services": "services",
        "PostgreSQL": "postgres",
        "Redis": "redis",
        "store": "store",
        "market": "market",
        "other programs": "others",
    }
    return {
        "workers": f"{result.workers}",
        "rounds": f"{len(result.rounds)}",
        "seconds": f"{used.seconds:.0f}",
        "pages/s": f"{result.pages / used.seconds:.1f}",
        **{head: f"{used.cpu_seconds[part]:.0f}" for head, part in cpu.items()},
        "API requests": f"{used.requests}",
        "database, MiB": f"{result.database_bytes / MIB:.1f}",
        "grown by, MiB": f"{used.database_bytes / MIB:.1f}",
    }
