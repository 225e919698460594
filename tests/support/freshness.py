"""How old a reader finds The Forge's data through a day: a schedule of fixed times beside one that follows `Expires`.

The market stand-in's clock is set from run to run, so that a day takes seconds. Its answers are real, and so are the
client that reads them and the function that says when to run next; how long a run takes is drawn from what was
measured. Runs of one deployment are played as Prefect has them: its slot is taken when a worker takes a run, ten
seconds ahead, and who comes meanwhile is cancelled.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import pairwise

import msgspec

from deployments.local.market.market import Market
from flows.next_run import ATTEMPTS, next_start
from tasks.esi.client import Esi, Pool
from tasks.esi.markets import find_market
from tests.support.worlds import serve

DAY_SECONDS, EVERY_SECONDS = 86_400.0, 300.0
REGION_ID = 10_000_063  # one page without orders; its HEAD has what The Forge's has
AHEAD_SECONDS = 10.0  # PREFECT_WORKER_PREFETCH_SECONDS
START_SECONDS = (0.2, 3.0)  # from a run's time to its first request
RUN_SECONDS = (4.0, 9.0)  # from there until The Forge's table is complete: docs/performance.md
IDLE_SECONDS = (0.3, 1.3)  # … or until the run has found that there is nothing newer


class Freshness(msgspec.Struct, frozen=True):
    """How old the table's data are to a reader who comes at any time of the day."""

    mean_seconds: float
    worst_seconds: float
    runs: int


def measure(phase_seconds: float, *, follows: bool) -> Freshness:
    """Play a day of fixed times, so long after a change of ESI's data, with runs that follow `Expires` or without."""
    started = datetime(2026, 11, 25, tzinfo=UTC).timestamp() + phase_seconds
    clock = [started]
    due = [started + EVERY_SECONDS * number for number in range(int(DAY_SECONDS / EVERY_SECONDS))]  # sorted, so a heap
    stored: list[tuple[float, float]] = []  # when, and the snapshot's own time
    created: dict[float, float] = {}  # when a run that follows was scheduled: no worker can take it before
    attempts: Counter[float] = Counter()  # runs that were to follow, by `Expires`
    free_at = fresh_until = follower = 0.0
    runs = 0
    with serve(Market(clock=lambda: clock[0])) as url, Esi(Pool(url, 1)) as esi:
        while (time := heappop(due)) < started + DAY_SECONDS - EVERY_SECONDS:
            if max(time - AHEAD_SECONDS, created.get(time, 0.0)) < free_at:
                continue  # a worker has taken it while another went on: it was cancelled
            clock[0], runs = max(time, free_at) + draw(START_SECONDS), runs + 1
            is_new = False
            if clock[0] >= fresh_until:
                answer = esi.head(find_market(REGION_ID).endpoint)
                modified = answer.last_modified.timestamp()
                is_new = not stored or modified > stored[-1][1]
                fresh_until = clock[0] + answer.fresh_seconds
            free_at = clock[0] + draw(RUN_SECONDS if is_new else IDLE_SECONDS)
            if is_new:
                stored.append((free_at, modified))
            when = next_start(datetime.fromtimestamp(fresh_until, UTC), datetime.fromtimestamp(free_at, UTC))
            is_followed = follower > free_at and max(follower - AHEAD_SECONDS, created[follower]) >= free_at
            if follows and when and not is_followed and attempts[fresh_until] < ATTEMPTS:
                follower = when.timestamp()
                attempts[fresh_until] += 1
                created[follower] = free_at
                heappush(due, follower)
    return describe(stored, runs)


def draw(bounds: tuple[float, float]) -> float:
    """Draw a time, in seconds."""
    return random.uniform(*bounds)


def describe(stored: list[tuple[float, float]], runs: int) -> Freshness:
    """Return how old the data were, from when each snapshot was stored, and its own time."""
    age_sum = worst = 0.0
    for (since, modified), (until, _next) in pairwise(stored):
        age_sum += ((since - modified) + (until - modified)) / 2 * (until - since)
        worst = max(worst, until - modified)
    return Freshness(age_sum / (stored[-1][0] - stored[0][0]), worst, runs)


def days() -> Iterator[tuple[str, Freshness]]:
    """Return a day of each schedule, at each of ten phases."""
    for follows in (False, True):
        for phase_seconds in (*range(0, 300, 30), 290, 295, 299):
            name = "following Expires" if follows else "fixed times"
            yield f"{name}, {phase_seconds} s after a change", measure(phase_seconds, follows=follows)


def main() -> int:
    """Print the days."""
    print(f"a day of The Forge, {timedelta(seconds=DAY_SECONDS)}; ages in seconds")  # noqa: T201 (a command's answer)
    for name, freshness in days():
        figures = f"mean {freshness.mean_seconds:.0f}, worst {freshness.worst_seconds:.0f}, {freshness.runs} runs"
        print(f"{name:42} {figures}", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
