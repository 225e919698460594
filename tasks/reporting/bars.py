"""Bars for work in a terminal. Prefect is not imported here: `make run` shows bars before it needs it."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


def make_bars(console: Console) -> Bars:
    """Return bars for work in a terminal; lines that are printed meanwhile stand above them."""
    return Bars(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
