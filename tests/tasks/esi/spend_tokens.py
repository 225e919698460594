"""Fetches as many pages from ESI_URL as ESI's tokens allow: a worker without its runs."""

import sys
import time
from contextlib import suppress

from tasks.esi.client import Esi
from tasks.esi.errors import EsiError, TransientError
from tasks.esi.markets import find_market
from tasks.esi.token_bucket import TokenBucket

REGION_ID, PAGES = 19_000_002, 60


def spend(seconds: float) -> None:
    """Fetch pages, in runs of one chunk each, for so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with TokenBucket() as tokens, Esi.from_environment(10, tokens) as esi, suppress(TransientError):
            esi.head(find_market(REGION_ID).endpoint)
            esi.expect(PAGES)
            pages = [esi.submit(esi.get, find_market(REGION_ID).endpoint, 1 + number % 2) for number in range(PAGES)]
            try:
                for page in pages:
                    page.result(timeout=max(0.1, deadline - time.monotonic()))
            except TimeoutError:
                esi.give_up(EsiError("the time is over"))  # type: ignore[arg-type]
                return


if __name__ == "__main__":
    spend(float(sys.argv[1]))
