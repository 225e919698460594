"""Random schedules of faults against the real flow: the table is never wrong; and against other loops: it is seen."""

from collections.abc import Iterator

import msgspec
import pytest

from tests.support.chaos.check import WrongTableError
from tests.support.chaos.play import hurry, play
from tests.support.chaos.ports import PORTS
from tests.support.chaos.schedule import draw_schedule
from tests.support.chaos.universe import play_universe

pytestmark = pytest.mark.usefixtures("store_url", "api")
SEEDS = range(16, 24)  # make chaos plays as many as one likes


@pytest.fixture(autouse=True)
def in_a_hurry() -> Iterator[None]:
    """Let waits be short."""
    with hurry():
        yield


@pytest.mark.parametrize("seed", SEEDS)
def test_table_is_never_wrong(seed: int) -> None:
    """Whatever fails, each item is true, `complete` is complete, and the next run repairs the rest."""
    assert play(draw_schedule(seed)).runs


def test_universe_in_one_table() -> None:
    """All regions and the five hubs share a table: each is true after a round of faults, and exact after the next."""
    outcome = play_universe(1)
    assert outcome.runs == 2
    assert outcome.injected.total() > 5


@pytest.mark.parametrize("name", PORTS)
def test_other_loops_are_caught(name: str) -> None:
    """Under the same faults of the market, loops that give up, drop or mix pages make a table that is seen as wrong."""
    schedules = [
        msgspec.structs.replace(
            draw_schedule(seed), at_once=1, start="empty", store_faults=[], markets=[], is_declared=False
        )
        for seed in range(220, 400, 2)  # at odd ones a reader may see these loops write, no merit of the faults
    ]
    play(msgspec.structs.replace(schedules[0], market_faults=[]), PORTS[name])
    for schedule in schedules:
        try:
            play(schedule, PORTS[name])
        except WrongTableError as error:
            if "says complete" in str(error):
                return
    pytest.fail("no schedule has shown it")
