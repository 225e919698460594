"""What is killed in the middle of a run of the universe, and started again, as a restart policy would."""

import time
from collections.abc import Callable, Iterator

import msgspec

from benchmarks.scale.topology import Topology
from deployments.local.processes import find_tree

OUTAGE_SECONDS = 20.0


class Kill(msgspec.Struct, frozen=True):
    """A kill, as soon as a share of the regions' tables is complete."""

    share: float
    act: Callable[[Topology], str | None]  # says what it has done, or nothing if there is nothing to kill yet


def kill_due(topology: Topology, plan: list[Kill], share: float) -> Iterator[str]:
    """Kill the first of a plan, take it off, and yield what was done, if so large a share of tables is complete."""
    if plan and share >= plan[0].share and (said := plan[0].act(topology)):
        plan.pop(0)
        yield said


def kill_worker(topology: Topology) -> str | None:
    """Kill the worker with the most flow runs in state Running, with them, and start another in its place."""
    statement = "SELECT infrastructure_pid FROM flow_run WHERE state_type = 'RUNNING'"
    running = {pid_of(row[0]) for row in topology.postgres.query(statement)}
    below = {name: set(find_tree(topology.servers.children[name].process.pid)) for name in topology.workers}
    name = max(below, key=lambda worker: len(running & below[worker]))
    if not running & below[name]:
        return None
    count = topology.kill(name)
    topology.start_worker_named(name)
    return f"killed {name} with {count - 1} processes below it, {len(running & below[name])} of them in state Running"


def pid_of(infrastructure_pid: str) -> int:
    """Return the process id that Prefect has noted of a run, as `host:pid`; 0 if none."""
    digits = infrastructure_pid.rpartition(":")[2]
    return int(digits) if digits else 0


def kill_api(topology: Topology) -> str:
    """Kill Prefect's API servers, all processes at once, and start them again after a while."""
    count = topology.kill("api")
    time.sleep(OUTAGE_SECONDS)  # the outage itself
    started = time.monotonic()
    topology.start_api()
    seconds = OUTAGE_SECONDS + time.monotonic() - started
    return f"killed the API servers, {count} processes; they answered again after {seconds:.0f} s"


def kill_redis(topology: Topology) -> str:
    """Kill Redis, and start it again."""
    topology.kill("redis")
    started = time.monotonic()
    topology.start_redis()
    return f"killed Redis; it answered again after {time.monotonic() - started:.1f} s"


PLAN = [Kill(0.25, kill_worker), Kill(0.5, kill_api), Kill(0.75, kill_redis)]
