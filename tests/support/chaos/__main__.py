"""`make chaos`: random schedules of faults, or kills at random moments, and whether the table was ever wrong."""

import argparse
import logging
import os
import random
import sys

from tests.support.api import Api
from tests.support.chaos.kills import kill_often
from tests.support.chaos.many import play_many
from tests.support.servers import start_servers, wait_for, wait_for_store


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser("make chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=200, help="so many schedules of faults: make chaos N=200")
    parser.add_argument("--kills", type=int, default=0, help="instead, so many runs killed: make chaos KILLS=100")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first: make chaos SEED=7")
    options = parser.parse_args()
    with start_servers(), Api(os.environ["PREFECT_API_URL"]) as api:
        wait_for_store()
        wait_for(api.is_up, "the Prefect server")
        logging.disable(logging.CRITICAL)
        if options.kills:
            return kill_often(options.kills, options.seed, api)
        return play_many(range(options.seed, options.seed + options.schedules))


if __name__ == "__main__":
    sys.exit(main())
