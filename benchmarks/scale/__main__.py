"""Runs the whole universe on the production topology, kills parts of it, and checks all tables."""

import argparse
import subprocess
import sys
from collections import Counter

from benchmarks.scale.check import check_tables, find_unfinished
from benchmarks.scale.figures import Result, describe, take_figures
from benchmarks.scale.kills import PLAN, Kills
from benchmarks.scale.runs import run_universe
from benchmarks.scale.services import MissingProgramError, find_program
from benchmarks.scale.topology import Topology
from benchmarks.servers import SNAPSHOT_INDEX, SNAPSHOT_SECONDS
from benchmarks.tables import Tables, WrongTableError
from deployments.local.market.sizes import region_pages
from deployments.local.processes import ChildError
from deployments.local.progress import Progress, fail
from deployments.local.stack import BusyError
from tasks.catalogue.names import regions

MOST_ROUNDS = 3
PROGRAMS = ("postgres", "initdb", "psql", "redis-server", "redis-cli")


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = read_options()
    try:
        for name in PROGRAMS:
            find_program(name)
        with Progress() as progress, Topology(progress.say, options.workers) as topology:
            result = measure(topology, options.regions, progress, has_kills=options.kills)
    except subprocess.CalledProcessError as error:
        fail(f"{error}: {error.stderr}")
        return 1
    except (BusyError, ChildError, MissingProgramError, WrongTableError) as error:
        fail(str(error))
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
    all_regions = list(regions())
    parser.add_argument("--regions", type=int, nargs="+", metavar="ID", default=all_regions, help="instead of all")
    return parser.parse_args()


def measure(topology: Topology, region_ids: list[int], progress: Progress, *, has_kills: bool) -> Result:
    """Run the universe until all tables are complete, and check each of them.

    Raises:
        WrongTableError: a table is not exact, or not complete after so many runs of the universe.
    """
    progress.begin("starting market, store, PostgreSQL, Redis and Prefect")
    topology.start(region_ids)
    progress.begin("starting workers")
    topology.start_workers()
    before = take_figures(topology)
    kills = Kills(topology, PLAN if has_kills else [], len(region_ids))
    rounds = run_rounds(topology, region_ids, kills, progress)
    topology.wait_for(topology.redis.is_consumed)  # what services still write down is the runs' doing too
    after = take_figures(topology)
    progress.begin("comparing all tables with the truth")
    records = check_tables(Tables(topology.store_url), region_ids, SNAPSHOT_INDEX, unfinished=[])
    pages = sum(max(1, region_pages(region_id) or 0) for region_id in region_ids)
    sizes = (len(topology.workers), len(region_ids), pages, records)
    return Result(*sizes, rounds, kills.done, after.since(before), after.database_bytes)


def run_rounds(topology: Topology, region_ids: list[int], kills: Kills, progress: Progress) -> list[Counter[str]]:
    """Run the universe as often as it takes until all tables are complete; return how each time's runs ended.

    Raises:
        WrongTableError: they are not after so many times, or one that is not complete holds what is not true.
    """
    tables, rounds = Tables(topology.store_url), []
    for number in range(1, MOST_ROUNDS + 1):
        progress.begin(f"running the universe, round {number}")
        rounds.append(run_universe(topology, region_ids, kills))
        unfinished = find_unfinished(tables, region_ids, SNAPSHOT_INDEX * SNAPSHOT_SECONDS)
        progress.say(f"round {number}: {dict(rounds[-1])}; {len(unfinished)} tables are not complete")
        if not unfinished:
            return rounds
        check_tables(tables, unfinished, SNAPSHOT_INDEX, unfinished)
    raise WrongTableError(f"after {MOST_ROUNDS} runs of the universe these are not complete: {unfinished}")


if __name__ == "__main__":
    sys.exit(main())
