"""Runs the whole universe on the production topology, kills parts of it, and checks all tables."""

import argparse
import subprocess
import sys
from collections import Counter

from benchmarks.cases import REGIONS
from benchmarks.scale.figures import Result, describe, subtract, take_figures
from benchmarks.scale.kills import PLAN, Kill, kill_due
from benchmarks.scale.services import MissingProgramError, find_program
from benchmarks.scale.topology import Topology
from benchmarks.servers import SNAPSHOT_INDEX, SNAPSHOT_TIME, Market
from benchmarks.tables import Tables, WrongTableError
from deployments.local.market.places import region_pages
from deployments.local.prepare import open_client
from deployments.local.processes import ChildError
from deployments.local.progress import Progress, fail
from deployments.local.stack import BusyError

MOST_ROUNDS = 4
LOOK_SECONDS, ROUND_SECONDS = 2.0, 2400.0
PROGRAMS = ("postgres", "initdb", "psql", "redis-server", "redis-cli")
DEPLOYMENT, TABLE_NAME = "universe/all", "MarketData-{region_id}"
ENDED = "state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = read_options()
    try:
        for name in PROGRAMS:
            find_program(name)
        with Progress() as progress, Topology(progress.say, options.workers) as topology:
            result = measure(topology, options.regions, progress, has_kills=options.kills)
    except (BusyError, ChildError, MissingProgramError, WrongTableError, subprocess.CalledProcessError) as error:
        fail(f"{error} {getattr(error, 'stderr', '')}".rstrip())
        return 1
    except KeyboardInterrupt:
        fail("stopped")
        return 130
    print(describe(result))  # noqa: T201 (what it is for)
    return 0


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--workers", type=int, default=4, help="how many (default %(default)s)")
    parser.add_argument("--no-kills", dest="kills", action="store_false", help="only measure")
    parser.add_argument("--regions", type=int, nargs="+", metavar="ID", default=[*REGIONS], help="instead of all")
    return parser.parse_args()


def measure(topology: Topology, region_ids: list[int], progress: Progress, *, has_kills: bool) -> Result:
    """Run the universe until all tables are complete and all is killed, and raise unless each table is exact."""
    progress.begin("starting market, store, PostgreSQL, Redis and Prefect")
    topology.start({Market(): region_ids})
    progress.begin("starting workers")
    topology.start_workers()
    before = take_figures(topology)
    tables, plan, done, rounds = Tables(topology.store.url), [*PLAN] * has_kills, list[str](), list[Counter[str]]()
    unfinished = region_ids
    while unfinished or plan:
        if len(rounds) == MOST_ROUNDS:
            raise WrongTableError(f"after {MOST_ROUNDS} runs of the universe these are not complete: {unfinished}")
        progress.begin(f"running the universe, round {len(rounds) + 1}")
        rounds.append(run_universe(topology, region_ids, tables, plan, done))
        unfinished = tables.find_unfinished(TABLE_NAME, region_ids, SNAPSHOT_TIME)
        progress.say(f"round {len(rounds)}: {dict(rounds[-1])}; {len(unfinished)} tables are not complete")
        tables.check(TABLE_NAME, unfinished, SNAPSHOT_INDEX, unfinished)
    # What services still write down is the runs' doing, too.
    topology.servers.wait_for("services", topology.redis.is_consumed)
    after = take_figures(topology)
    progress.begin("comparing all tables with the truth")
    records = tables.check(TABLE_NAME, region_ids, SNAPSHOT_INDEX)
    pages = sum(max(1, region_pages(region_id) or 0) for region_id in region_ids)
    sizes = (len(topology.workers), len(region_ids), pages, records)
    return Result(*sizes, rounds, done, subtract(after, before), after["database"])


def run_universe(
    topology: Topology, region_ids: list[int], tables: Tables, plan: list[Kill], done: list[str]
) -> Counter[str]:
    """Run the universe once, kill what is due meanwhile, and return how many flow runs ended in which state."""
    before, unfinished = count_states(topology), region_ids

    def has_ended() -> bool:
        nonlocal unfinished
        unfinished = tables.find_unfinished(TABLE_NAME, unfinished, SNAPSHOT_TIME)
        for said in kill_due(topology, plan, 1 - len(unfinished) / len(region_ids)):
            topology.say(f"{len(region_ids) - len(unfinished)} regions are complete: {said}")
            done.append(said)
        # Prefect's database answers while its API is down.
        return not topology.postgres.query(f"SELECT 1 FROM flow_run WHERE NOT ({ENDED}) LIMIT 1")  # noqa: S608 (ours)

    parameters = {"region_ids": region_ids, "table_name": TABLE_NAME, "shards": len(topology.workers)}
    with open_client(topology.api_url) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    topology.servers.wait_for("the universe", has_ended, ROUND_SECONDS, LOOK_SECONDS)
    return count_states(topology) - before


def count_states(topology: Topology) -> Counter[str]:
    """Return how many flow runs have ended so far, by their state's name."""
    states = topology.postgres.query(f"SELECT state_name, count(*) FROM flow_run WHERE {ENDED} GROUP BY 1")  # noqa: S608
    return Counter({name: int(count) for name, count in states})


if __name__ == "__main__":
    sys.exit(main())
