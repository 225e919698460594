"""Plays many schedules, on all cores."""

import logging
import multiprocessing
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from deployments.local.processes import die_with_parent
from tests.support.chaos.check import WrongTableError
from tests.support.chaos.outcome import Outcome
from tests.support.chaos.play import hurry, play, shrink
from tests.support.chaos.schedule import Schedule, draw_schedule
from tests.support.chaos.universe import play_universe

REPORT_SECONDS = 30.0
UNIVERSE_SEEDS = 20  # every so many seeds, the universe is played as well
WRONG, FAILED = "WRONG TABLE", "FAILED WITHOUT A FAULT"


def play_many(seeds: range) -> int:
    """Play schedules on all cores and print what came of them; return the exit code."""
    say(f"{len(seeds)} schedules from seed {seeds.start}: make chaos N={len(seeds)} SEED={seeds.start}")
    started = reported = time.monotonic()
    total, done, violations = Outcome(), 0, Counter[str]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=begin) as pool:
        for future in as_completed([pool.submit(play_one, seed) for seed in seeds]):
            outcome, violation, message = future.result()
            done += 1
            total.add(outcome)
            if violation:
                violations[violation] += 1
                say(message)
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                say(f"{reported - started:6.0f} s  {done} schedules, {total.runs} runs, wrong: {violations.total()}")
    say("\n".join(describe(total, done, time.monotonic() - started)))
    say(f"wrong tables: {violations[WRONG]}, last runs that failed without a fault: {violations[FAILED]}")
    return int(violations.total() > 0)


def say(line: str) -> None:
    """Print a line."""
    print(line, flush=True)  # noqa: T201 (what it is for)


def begin() -> None:
    """Keep the runs' own output out of the way: that they fail is what they are for."""
    die_with_parent()
    logging.disable(logging.CRITICAL)


def play_one(seed: int) -> tuple[Outcome, str, str]:
    """Play one schedule; return what came of it, `WRONG` or `FAILED` or nothing, and how to see it again."""
    schedule = draw_schedule(seed)
    with hurry(), temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        try:
            return play_seed(schedule), "", ""
        except Exception as error:  # noqa: BLE001 (whatever it is, it is reported)
            what = WRONG if isinstance(error, WrongTableError) else FAILED
            trace = traceback.format_exc(limit=-3)
            smallest = shrink(schedule) if what == WRONG else schedule
            shown = msgspec.json.format(msgspec.json.encode(smallest)).decode()
            return Outcome(), what, f"{what} at seed {seed}: {trace}smallest schedule: {shown}"


def play_seed(schedule: Schedule) -> Outcome:
    """Play a schedule and, if it is its seed's turn, the universe."""
    outcome = play(schedule)
    if schedule.seed % UNIVERSE_SEEDS == 0:
        outcome.add(play_universe(schedule.seed))
    return outcome


def describe(total: Outcome, done: int, seconds: float) -> Iterator[str]:
    """Return the lines of the end's summary."""
    yield f"{done} schedules in {seconds:.0f} s: {total.runs} runs, {sum(total.failed.values())} of them failed cleanly"
    yield f"markets in each table: {listed(total.tables)}"
    yield f"faults injected: {sum(total.injected.values())}: {listed(total.injected)}"
    yield f"errors: {listed(total.failed)}"
    yield f"whole reads meanwhile: {total.reads}"


def listed(counts: Counter[str]) -> str:
    """Return counts in words, the most first."""
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())
