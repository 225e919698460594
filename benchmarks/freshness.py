"""How old a reader finds The Forge's data through a day: a schedule of fixed times beside one that follows `Expires`.

The market stand-in's clock is set from run to run, so that a day takes seconds. Its answers are real, and so are the
client that reads them and the function that says when to run next; how long a run takes is drawn from what was
measured.
"""

import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec

from deployments.local.market.market import Market
from deployments.local.market.server import serve
from tasks.esi import Esi
from tasks.next_run import next_start

DAY_SECONDS, EVERY_SECONDS = 86_400.0, 300.0
REGION_ID = 10_000_003  # one page; a HEAD is as good as The Forge's
START_SECONDS = (0.2, 3.0)  # from a run's time to its first request: the worker starts its process ten seconds ahead
RUN_SECONDS = (4.0, 9.0)  # from there until The Forge's table is complete: docs/performance.md

Schedule = Callable[[float, datetime | None], float]  # a run's time and `Expires`, to the next one's time


class Freshness(msgspec.Struct, frozen=True):
    """How old the table's data are to a reader who comes at any time of the day."""

    mean_seconds: float
    worst_seconds: float
    runs: int


def measure(schedule: Schedule, begun: float) -> Freshness:
    """Plays a day from `begun`, unix time, and gives the ages by which it went."""
    clock = [begun]
    market = Market(clock=lambda: clock[0])
    age_sum = worst = 0.0
    stored: list[tuple[float, float]] = []  # when, and the snapshot's own time
    time, runs = begun, 0
    with serve(market) as url, Esi(url, "benchmark", 1) as esi:
        while time < begun + DAY_SECONDS:
            clock[0] = time + random.uniform(*START_SECONDS)  # noqa: S311 (plays)
            answer = esi.head(REGION_ID)
            ended = clock[0] + random.uniform(*RUN_SECONDS)  # noqa: S311
            modified = answer.last_modified.timestamp()
            if not stored or modified > stored[-1][1]:
                stored.append((ended, modified))
            expires = datetime.fromtimestamp(clock[0] + answer.fresh_seconds, UTC)
            time, runs = schedule(time, expires), runs + 1
    for (since, modified), (until, _next) in pairwise(stored):
        youngest, oldest = since - modified, until - modified
        age_sum += (youngest + oldest) / 2 * (until - since)
        worst = max(worst, oldest)
    return Freshness(age_sum / (stored[-1][0] - stored[0][0]), worst, runs)


def at_fixed_times(time: float, _expires: datetime | None) -> float:
    """A schedule of every 300 s, at whatever phase it began."""
    return time + EVERY_SECONDS


def after_expires(time: float, expires: datetime | None) -> float:
    """The schedule of `tasks.next_run`, with the fixed one as its safety net."""
    when = next_start(expires, datetime.fromtimestamp(time, UTC))
    return when.timestamp() if when else time + EVERY_SECONDS


def days() -> Iterator[tuple[str, Freshness]]:
    """Gives a day of each schedule; of fixed times, at each of ten phases."""
    midnight = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
    for phase in range(0, 300, 30):
        yield f"every 300 s, {phase} s after a change", measure(at_fixed_times, midnight + phase)
    yield "following Expires", measure(after_expires, midnight + 137)


def main() -> int:
    """Prints the days."""
    print(f"a day of The Forge, {timedelta(seconds=DAY_SECONDS)}; ages in seconds")  # noqa: T201 (a command's answer)
    for name, freshness in days():
        told = f"mean {freshness.mean_seconds:.0f}, worst {freshness.worst_seconds:.0f}, {freshness.runs} runs"
        print(f"{name:36} {told}", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
