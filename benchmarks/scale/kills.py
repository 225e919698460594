"""What is killed in the middle of a run of the universe, and started again, as a restart policy would."""

import time
from collections.abc import Callable

import msgspec

from benchmarks.scale.process_tree import find_tree
from benchmarks.scale.topology import Topology

OUTAGE_SECONDS = 20.0


class Kill(msgspec.Struct, frozen=True):
    """A kill, as soon as so many runs of regions have ended."""

    share: float  # of the regions
    act: Callable[[Topology], str | None]  # says what it has done, or nothing if there is nothing to kill yet


class Kills:
    """Kills what is due, each once. Without a plan, nothing.

    Args:
        topology: what runs.
        plan: in the order of their shares.
        regions: how many are run.
    """

    def __init__(self, topology: Topology, plan: list[Kill], regions: int) -> None:
        self.done: list[str] = []
        self._topology = topology
        self._plan = list(plan)
        self._regions = regions

    def play(self, ended: int) -> None:
        """Kill what is due.

        Args:
            ended: how many runs of regions have ended.
        """
        if not self._plan or ended < self._plan[0].share * self._regions:
            return
        if said := self._plan[0].act(self._topology):
            self._topology.say(f"{ended} regions have ended: {said}")
            self.done.append(said)
            self._plan.pop(0)


def kill_worker(topology: Topology) -> str | None:
    """Kill the worker with the most flow runs that have begun to run, with them, and start another in its place."""
    statement = "SELECT infrastructure_pid FROM flow_run WHERE state_type = 'RUNNING'"
    running = {pid_of(row[0]) for row in topology.postgres.query(statement)}
    runs = {name: running & set(find_tree(topology.children[name].process.pid)) for name in topology.workers}
    name = max(runs, key=lambda worker: len(runs[worker]))
    if not runs[name]:
        return None
    count = topology.kill(name)
    topology.start_worker(name)
    return f"killed {name} with {count - 1} processes below it, {len(runs[name])} of them runs in state Running"


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
