"""Runs of the universe, and how far they are, as Prefect's database says: it answers while the API is down."""

from collections import Counter

from benchmarks.scale.check import TABLE_NAME
from benchmarks.scale.kills import Kills
from benchmarks.scale.topology import RUNS_A_WORKER, Topology

DEPLOYMENT = "universe/all"
LOOK_SECONDS = 1.0
ROUND_SECONDS = 2400.0
REGIONS_ENDED = """
    SELECT flow_run.state_name, count(*) FROM flow_run JOIN flow ON flow.id = flow_run.flow_id
    WHERE flow.name = 'market-data' AND flow_run.state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')
    GROUP BY 1
"""
UNFINISHED = "SELECT 1 FROM flow_run WHERE state_type NOT IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') LIMIT 1"


def run_universe(topology: Topology, region_ids: list[int], kills: Kills) -> Counter[str]:
    """Run the universe once, kill what is due meanwhile, and return how many runs of regions ended in which state.

    Raises:
        ChildError: a process has ended that nobody has killed, or it takes too long.
    """
    before = count_states(topology)
    concurrency = RUNS_A_WORKER * len(topology.workers) - 1  # one place is the universe's own run's
    parameters = {"region_ids": region_ids, "table_name": TABLE_NAME, "concurrency": concurrency}
    topology.api.create_run(DEPLOYMENT, parameters)
    topology.wait_for(lambda: has_ended(topology, before, kills), LOOK_SECONDS, ROUND_SECONDS)
    return count_states(topology) - before


def has_ended(topology: Topology, before: Counter[str], kills: Kills) -> bool:
    """Return whether all runs have ended, and kill what is due."""
    kills.play((count_states(topology) - before).total())
    return not topology.postgres.query(UNFINISHED)


def count_states(topology: Topology) -> Counter[str]:
    """Return how many runs of regions have ended so far, by their state's name."""
    return Counter({name: int(count) for name, count in topology.postgres.query(REGIONS_ENDED)})
