"""What is killed during a run of the universe, and restarted as a restart policy would."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.scale.topology import Topology
from deployments.local.processes import find_tree

OUTAGE_SECONDS = 20.0


class Kill(msgspec.Struct, frozen=True):
    """A kill, due when a share of the tables is complete."""

    share: float
    act: Callable[[Topology], str | None]  # returns what it did, None if there is nothing to kill yet


def kill_due(topology: Topology, plan: list[Kill], share: float) -> str | None:
    """Execute the plan's first kill if it is due, remove it from the plan, and return what it did."""
    done = plan[0].act(topology) if plan and share >= plan[0].share else None
    if done:
        plan.pop(0)
    return done


def kill_worker(topology: Topology) -> str | None:
    """Kill the worker with the most flow runs in state Running, with these runs, and start a replacement."""
    running = list_running(topology)
    trees = {name: running & set(find_tree(topology.children[name].pid)) for name in topology.workers}
    name = max(trees, key=lambda worker: len(trees[worker]))
    if not trees[name]:
        return None
    count = topology.kill(name)
    topology.start_worker_named(name)
    return f"killed {name} with {count - 1} child processes, {len(trees[name])} of them flow runs in state Running"


def list_running(topology: Topology) -> set[int]:
    """Return the process ids of the flow runs in state Running."""
    statement = "SELECT infrastructure_pid FROM flow_run WHERE state_type = 'RUNNING'"
    return {pid_of(pid or "") for (pid,) in topology.query(statement)}


def pid_of(infrastructure_pid: str) -> int:
    """Return the process id of a flow run in Prefect's notation `host:pid`, 0 if it is empty."""
    return int(infrastructure_pid.rpartition(":")[2] or 0)


def kill_api(topology: Topology) -> str:
    """Kill all processes of Prefect's API servers at once, and restart them after an outage."""
    count = topology.kill("api")
    killed_at = time.monotonic()
    time.sleep(OUTAGE_SECONDS)  # the outage
    topology.start_api()
    return f"killed the API servers, {count} processes; they answered again after {time.monotonic() - killed_at:.0f} s"


def kill_redis(topology: Topology) -> str | None:
    """Kill Redis, and restart it; not before killed runs are Crashed, which Prefect would forget meanwhile (3.8.8)."""
    if not all(Path(f"/proc/{pid}").exists() for pid in list_running(topology)):
        return None
    topology.kill("redis")
    killed_at = time.monotonic()
    topology.start_redis()
    return f"killed Redis; it answered again after {time.monotonic() - killed_at:.1f} s"


PLAN = [Kill(0.25, kill_worker), Kill(0.5, kill_api), Kill(0.75, kill_redis)]
