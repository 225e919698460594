"""The pictures of a summary, checked by their pixels."""

import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.reporting.pictures import BLUE, HEIGHT, LEFT, RIGHT, STATE_COLOURS, TOP, WIDTH, draw_pictures, find_ticks
from tasks.reporting.summary import MOST_PERCENT, Summary
from tests.support.pixels import find_pixels
from tests.support.summaries import make_summary

COUNT = st.integers(0, 10**7)
SECONDS = st.floats(0, 10**5)


def heights(chart: bytes) -> list[int]:
    """Return the heights of a chart's columns, from left to right, without empty ones."""
    high = find_pixels(chart, BLUE, 12)[TOP:HEIGHT, LEFT : WIDTH - RIGHT].sum(axis=0)
    edges = np.flatnonzero(np.diff(high)) + 1
    return [int(part[0]) for part in np.split(high, edges) if part[0]]


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(
            make_summary,
            st.integers(0, 10**5),
            age_seconds=SECONDS,
            written=COUNT,
            deleted=COUNT,
            state_seconds=st.dictionaries(st.sampled_from(["Get Page Count", "Fetch Pages", "Store Records"]), SECONDS),
            price_changes=st.dictionaries(st.integers(-MOST_PERCENT, MOST_PERCENT), st.integers(1, 20_000)),
        ),
        min_size=1,
        max_size=30,
    )
)
@example([make_summary(age_seconds=5e-324, state_seconds={"Fetch Pages": 5e-324})] * 2)
def test_any_runs_can_be_drawn(runs: list[Summary]) -> None:
    """Any runs can be drawn, as wide as the UI, and together far smaller than an artifact may be."""
    drawn = draw_pictures(runs)
    assert len(drawn) == 2 + (len(runs) > 1) + bool(runs[0].price_changes)
    assert sum(map(len, drawn.values())) < 80_000
    assert {Image.open(io.BytesIO(png)).width for png in drawn.values()} == {WIDTH}


def test_bars_are_as_long_as_states_took() -> None:
    """A state that took three times as long has a bar of three times the pixels."""
    states, _written = draw_pictures([make_summary(state_seconds={"Fetch Pages": 3.0, "Aggregate": 1.0})]).values()
    legend = 11 * 11
    long, short = (find_pixels(states, colour, 12).sum() - legend for colour in STATE_COLOURS[:2])
    assert long / short == pytest.approx(3.0, rel=0.05)


def test_columns_are_as_high_as_counts() -> None:
    """Columns are proportional to the records written, and to the types per price change."""
    last, first = make_summary(1, written=1000, price_changes={-3: 200, 7: 100}), make_summary(0, written=2000)
    _states, _ages, written, changes = draw_pictures([last, first]).values()
    assert heights(written)[0] / heights(written)[1] == pytest.approx(2.0, rel=0.05)
    assert heights(changes)[0] / heights(changes)[1] == pytest.approx(2.0, rel=0.05)


@given(st.floats(1e-3, 1e12))
def test_ticks_are_round_and_few(most: float) -> None:
    """An axis has three to eleven evenly spaced labels, from 0 to at most the largest value."""
    ticks = find_ticks(most)
    assert 3 <= len(ticks) <= 11
    assert ticks[0] == 0
    assert ticks[-1] <= most * 1.000001
    assert ticks[1] * (len(ticks) - 1) == pytest.approx(ticks[-1])
