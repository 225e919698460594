"""Run the market stand-in: `python -m deployments.local.market --help`."""

import argparse
import asyncio
import sys
import time

from deployments.local.market.market import Market
from deployments.local.market.server import run


def main() -> None:
    """Serve until SIGINT or SIGTERM; exit with 1 if the port is taken."""
    parser = argparse.ArgumentParser("python -m deployments.local.market", description="Stand in for ESI's market.")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: a free one)")
    parser.add_argument("--every", type=int, default=300, help="seconds between two snapshots (default %(default)s)")
    parser.add_argument("--at", type=float, metavar="UNIX_TIME", help="freeze the clock at this time")
    parser.add_argument("--latency-ms", type=float, default=0, help="added to each response (default %(default)s)")
    parser.add_argument("--prepare", type=int, nargs="*", default=[], metavar="REGION", help="prepare pages first")
    options = parser.parse_args()
    clock = time.time if options.at is None else lambda: float(options.at)
    market = Market(every=options.every, clock=clock, latency_seconds=options.latency_ms / 1000)
    for region_id in options.prepare:
        market.prepare(region_id, market.index).result()
    try:
        asyncio.run(run(market, options.port))
    except OSError as error:
        sys.exit(f"market stand-in: port {options.port} on 127.0.0.1: {error.strerror}")


if __name__ == "__main__":
    main()
