"""Draws charts of runs: seconds by state, age of the data, records written, price changes.

Uses Pillow, which imports in 0.05 s: importing matplotlib alone would take longer than all the drawing may.
"""

import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from tasks.reporting.summary import MOST_PERCENT, Summary

RUNS = 20
WIDTH, HEIGHT = 780, 230  # pixels; as wide as the Prefect UI's text on a laptop
LEFT, RIGHT, TOP, BOTTOM = 70, 50, 56, 44  # margins of the plot: tick labels, title, axis title
BAR = 14  # pixels from one run's bar to the next
# An opaque background, so that the contrast is the same in the UI's light and dark themes.
PAPER, INK, GRID = "#f6f8fa", "#1f2328", "#d0d7de"
SHADES = 32  # enough for smooth text, at a third of true colour's size
BLUE = "#0969da"
STATE_COLOURS = ("#8250df", "#bf8700", "#0969da", "#1a7f37", "#cf222e", "#57606a")


def draw_pictures(runs: Sequence[Summary]) -> dict[str, bytes]:
    """Return PNG files by title of a table's last `RUNS` runs that stored something, the newest first.

    There are no ages for a single run, and no price changes if the newest run has none.
    """
    drawn = list(reversed(runs[:RUNS]))
    last = f"last {len(drawn)} runs" if len(drawn) > 1 else "last run"
    charts = {f"Seconds by state, {last}": draw_states(drawn)}
    if len(drawn) > 1:
        charts["Age of the data, as a reader saw it"] = draw_ages(drawn)
    charts[f"Records written, {last}"] = draw_written(drawn)
    if drawn[-1].price_changes:
        charts["Price changes since the snapshot before"] = draw_price_changes(drawn[-1].price_changes)
    return {title: chart.to_png(title) for title, chart in charts.items()}


class Chart:
    """A plot with axes. Coordinates are in the axes' units."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT) -> None:
        self.image = Image.new("RGB", (WIDTH, height), PAPER)
        self._draw = ImageDraw.Draw(self.image)
        self._draw.font, self._title_font = ImageFont.load_default(12), ImageFont.load_default(15)
        self._x, self._y = ((begin, end if end != begin else begin + 1) for begin, end in (x, y))
        self._right, self._bottom = WIDTH - RIGHT, height - BOTTOM

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return a point in pixels."""
        (x0, x1), (y0, y1) = self._x, self._y
        right, up = (x - x0) / (x1 - x0) * (self._right - LEFT), (y - y0) / (y1 - y0) * (self._bottom - TOP)
        return LEFT + right, self._bottom - up

    def mark_x(self, ticks: dict[float, str], title: str, *, grid: bool = False) -> None:
        """Label the x axis; skip labels that would overlap."""
        free = 0.0
        for value, label in ticks.items():
            x, width = self.place(value, 0)[0], self._draw.textlength(label)
            if grid:
                self._draw.line((x, TOP, x, self._bottom), fill=GRID)
            if x - width / 2 >= free:
                self._draw.text((x, self._bottom + 6), label, INK, anchor="ma")
                free = x + width / 2 + 8
        self._draw.text((self._right, self._bottom + 24), title, INK, anchor="ra")

    def mark_y(self, ticks: dict[float, str], title: str, *, grid: bool = True) -> None:
        """Label the y axis, with its title above."""
        for value, label in ticks.items():
            y = self.place(0, value)[1]
            if grid:
                self._draw.line((LEFT, y, self._right, y), fill=GRID)
            self._draw.text((LEFT - 8, y), label, INK, anchor="rm")
        self._draw.text((8, TOP - 8), title, INK, anchor="lb")

    def fill(self, x0: float, x1: float, y0: float, y1: float, colour: str = BLUE) -> None:
        """Fill a rectangle, less a gap of a pixel, but never hide one that is not empty."""
        (left, bottom), (right, top) = self.place(x0, y0), self.place(x1, y1)
        if right > left and bottom > top:
            self._draw.rectangle((left, min(bottom, top + 1), max(left, right - 1), bottom), fill=colour)

    def fill_below(self, points: Sequence[tuple[float, float]]) -> None:
        """Fill the area below a line, drawn at four times the size for smooth edges."""
        mask = Image.new("L", (WIDTH * 4, self.image.height * 4))
        ends = [(points[0][0], 0.0), *points, (points[-1][0], 0.0)]
        ImageDraw.Draw(mask).polygon([(4 * x, 4 * y) for x, y in (self.place(*point) for point in ends)], fill=255)
        self.image.paste(BLUE, mask=mask.reduce(4))

    def explain(self, colours: dict[str, str]) -> None:
        """Draw a legend of colours."""
        x, y = float(LEFT), TOP - 22
        for name, colour in colours.items():
            self._draw.rectangle((x, y, x + 10, y + 10), fill=colour)
            self._draw.text((x + 15, y + 5), name, INK, anchor="lm")
            x += 15 + self._draw.textlength(name) + 18

    def to_png(self, title: str) -> bytes:
        """Return the picture with its title."""
        self._draw.text((8, 8), title, INK, self._title_font)
        file = io.BytesIO()
        self.image.quantize(SHADES, Image.Quantize.FASTOCTREE).save(file, "PNG")
        return file.getvalue()


def draw_states(runs: Sequence[Summary]) -> Chart:
    """Draw a bar per run, the newest at the bottom, of the seconds in each state."""
    names = list(dict.fromkeys(name for run in runs for name in run.state_seconds))
    colours = dict(zip(names, STATE_COLOURS, strict=False))
    longest = max(sum(run.state_seconds.values()) for run in runs)
    chart = Chart((0, longest), (len(runs), 0), TOP + BOTTOM + BAR * max(2, len(runs)))
    chart.mark_x({tick: f"{tick:g}" for tick in find_ticks(longest)}, "seconds; snapshots by their UTC time", grid=True)
    chart.mark_y({row + 0.5: f"{run.last_modified:%H:%M}" for row, run in enumerate(runs)}, "snapshot", grid=False)
    for row, run in enumerate(runs):
        start = 0.0
        for name, seconds in run.state_seconds.items():
            chart.fill(start, start + seconds, row + 0.9, row + 0.1, colours.get(name, INK))
            start += seconds
    chart.explain(colours)
    return chart


def draw_ages(runs: Sequence[Summary]) -> Chart:
    """Draw the age of the table's data: it drops at each run that stored something, then grows."""
    points: list[tuple[float, float]] = []
    for run, following in pairwise([*runs, runs[-1]]):
        snapshot = run.last_modified.timestamp()
        replaced = following.last_modified.timestamp() + following.age_seconds
        points += [(snapshot + run.age_seconds, run.age_seconds), (replaced, replaced - snapshot)]
    oldest = max(age for _time, age in points)
    chart = Chart((points[0][0], points[-1][0]), (0, oldest))
    chart.mark_y({tick: f"{tick:,g}" for tick in find_ticks(oldest)}, "age (s)")
    chart.fill_below(points)
    chart.mark_x({time: f"{datetime.fromtimestamp(time, UTC):%H:%M}" for time, _age in points[::2]}, "stored, UTC")
    return chart


def draw_written(runs: Sequence[Summary]) -> Chart:
    """Draw a column per run of the records written and deleted."""
    most = max(run.written + run.deleted for run in runs)
    chart = Chart((0, max(8, len(runs))), (0, most))
    chart.mark_y({tick: f"{tick:,g}" for tick in find_ticks(most)}, "records")
    for place, run in enumerate(runs):
        chart.fill(place + 0.1, place + 0.9, 0, run.written)
        chart.fill(place + 0.1, place + 0.9, run.written, run.written + run.deleted, STATE_COLOURS[4])
    chart.explain({"written": BLUE, "deleted": STATE_COLOURS[4]})
    chart.mark_x({place + 0.5: f"{run.last_modified:%H:%M}" for place, run in enumerate(runs)}, "snapshot, UTC")
    return chart


def draw_price_changes(price_changes: dict[int, int]) -> Chart:
    """Draw a column per percent of price change, of the number of types."""
    most, reach = max(price_changes.values()), MOST_PERCENT
    chart = Chart((-reach - 0.5, reach + 0.5), (0, most))
    chart.mark_y({tick: f"{tick:,g}" for tick in find_ticks(most)}, "item types")
    for percent, types in price_changes.items():
        chart.fill(percent - 0.4, percent + 0.4, 0, types)
    inner = {float(percent): f"{percent:+}" if percent else "0" for percent in range(-reach + 5, reach, 5)}
    chart.mark_x({-reach: f"{-reach} or less", **inner, reach: f"+{reach} or more"}, "change of price (%)")
    return chart


def find_ticks(most: float) -> list[float]:
    """Return about five round values from 0 to `most`; only 0 if it is below a thousandth."""
    if most < 1e-3:
        return [0.0]
    rough = most / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    return [round(number * step, 6) for number in range(int(most / step) + 1)]
