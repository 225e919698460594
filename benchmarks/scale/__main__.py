"""Run the universe on the production topology, kill parts of it, and check all tables."""

import argparse
import sys
from collections import Counter

from benchmarks.cases import REGIONS
from benchmarks.scale.figures import Result, describe, subtract, take_figures
from benchmarks.scale.kills import PLAN, Kill, kill_due
from benchmarks.scale.topology import NO_ANSWER, Topology, find_program
from benchmarks.servers import SNAPSHOT_INDEX, SNAPSHOT_TIME, Market
from benchmarks.tables import Tables, WrongTableError
from deployments.local.market.places import region_pages
from deployments.local.processes import StackError
from deployments.local.progress import fail

MOST_ROUNDS = 4
LOOK_SECONDS, ROUND_SECONDS = 2.0, 2400.0
PROGRAMS = ("postgres", "initdb", "redis-server")
DEPLOYMENT, TABLE_NAME = "universe/all", "MarketData-{region_id}"
ENDED = "state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--workers", type=int, default=4, help="number of workers (default %(default)s)")
    parser.add_argument("--no-kills", dest="kills", action="store_false", help="only measure")
    parser.add_argument("--regions", type=int, nargs="+", metavar="ID", default=[*REGIONS], help="default: all")
    options = parser.parse_args()
    try:
        for name in PROGRAMS:
            find_program(name)
        with Topology(options.workers) as topology:
            result = measure(topology, options.regions, [*PLAN] * options.kills)
    except (StackError, WrongTableError, *NO_ANSWER) as error:
        return fail(str(error))
    except KeyboardInterrupt:
        fail("stopped")
        return 130
    print(describe(result))  # noqa: T201 (a command's answer)
    return 0


def measure(topology: Topology, region_ids: list[int], plan: list[Kill]) -> Result:
    """Run the universe until all tables are complete and all kills done; raise WrongTableError if a table is wrong."""
    progress = topology.progress
    progress.begin("starting market, store, PostgreSQL, Redis and Prefect")
    topology.start_all({Market(): region_ids})
    progress.begin("starting workers")
    topology.start_workers()
    before, tables = take_figures(topology), Tables(topology.store_url)
    kills, rounds, unfinished = list[str](), list[Counter[str]](), region_ids
    while unfinished or plan:
        if len(rounds) == MOST_ROUNDS:
            raise WrongTableError(
                f"after {MOST_ROUNDS} rounds the tables of these regions are incomplete: {unfinished}"
            )
        progress.begin(f"running the universe, round {len(rounds) + 1}")
        rounds.append(run_universe(topology, region_ids, tables, plan, kills))
        unfinished = tables.find_unfinished(TABLE_NAME, region_ids, SNAPSHOT_TIME)
        progress.say(f"round {len(rounds)}: {dict(rounds[-1])}; {len(unfinished)} incomplete tables")
        tables.check(TABLE_NAME, unfinished, SNAPSHOT_INDEX, is_whole=False)
    topology.wait_for("services", topology.is_consumed)  # what they still write belongs to the runs
    after = take_figures(topology)
    progress.begin("checking all tables")
    records = tables.check(TABLE_NAME, region_ids, SNAPSHOT_INDEX)
    pages = sum(max(1, region_pages(region_id) or 0) for region_id in region_ids)
    sizes = (len(topology.workers), len(region_ids), pages, records)
    return Result(*sizes, rounds, kills, subtract(after, before), after["database"])


def run_universe(
    topology: Topology, region_ids: list[int], tables: Tables, plan: list[Kill], kills: list[str]
) -> Counter[str]:
    """Run the universe once, add due kills to `kills`, and return the number of flow runs by final state."""
    before, unfinished = count_states(topology), region_ids

    def has_ended() -> bool:
        nonlocal unfinished
        unfinished = tables.find_unfinished(TABLE_NAME, unfinished, SNAPSHOT_TIME)
        if done := kill_due(topology, plan, 1 - len(unfinished) / len(region_ids)):
            topology.progress.say(f"{len(region_ids) - len(unfinished)} regions are complete: {done}")
            kills.append(done)
        # Asks the database, because the API may be down.
        return not topology.query(f"SELECT 1 FROM flow_run WHERE NOT ({ENDED}) LIMIT 1")  # noqa: S608 (ours)

    parameters = {"region_ids": region_ids, "table_name": TABLE_NAME, "shards": len(topology.workers)}
    deployment = topology.client.read_deployment_by_name(DEPLOYMENT)
    topology.client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    topology.wait_for("the universe", has_ended, ROUND_SECONDS, LOOK_SECONDS)
    return count_states(topology) - before


def count_states(topology: Topology) -> Counter[str]:
    """Return the number of ended flow runs by state name."""
    states = topology.query(f"SELECT state_name, count(*) FROM flow_run WHERE {ENDED} GROUP BY 1")  # noqa: S608
    return Counter(dict(states))


if __name__ == "__main__":
    sys.exit(main())
