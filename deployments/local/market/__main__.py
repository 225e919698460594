"""Run the market stand-in: `python -m deployments.local.market --help`."""

import argparse
import asyncio
import signal
import sys
import time

from deployments.local.market.market import Market
from deployments.local.market.server import listen


def main() -> int:
    """Serve until SIGINT or SIGTERM; exit with 1 if the port is taken."""
    parser = argparse.ArgumentParser("python -m deployments.local.market", description="Stand in for ESI's market.")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: a free one)")
    parser.add_argument("--seed", type=int, default=1, help="of the random orders (default %(default)s)")
    parser.add_argument("--every", type=int, default=300, help="seconds between two snapshots (default %(default)s)")
    parser.add_argument("--at", type=float, metavar="UNIX_TIME", help="freeze the clock at this time")
    parser.add_argument("--latency-ms", type=float, default=0, help="added to each response (default %(default)s)")
    parser.add_argument("--enforce-limit", action="store_true", help="answer 429 when the tokens are used up")
    parser.add_argument("--prepare", type=int, nargs="*", default=[], metavar="REGION", help="prepare pages at start")
    options = parser.parse_args()
    market = Market(
        options.seed,
        options.every,
        clock=time.time if options.at is None else lambda: float(options.at),
        latency_seconds=options.latency_ms / 1000,
        enforce_limit=options.enforce_limit,
    )
    for region_id in options.prepare:
        market.prepare(region_id, market.index)
    try:
        asyncio.run(run(market, options.port))
    except OSError as error:
        sys.exit(f"market stand-in: port {options.port} on 127.0.0.1: {error.strerror}")
    return 0


async def run(market: Market, port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listen(market, port) as url:
        print(f"market stand-in on {url}", flush=True)  # noqa: T201 (callers wait for it)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
