"""The flow of this project, in runs that send no heartbeats and show nothing of themselves: what being seen costs."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import no_heartbeats
from flows.market_data import market_data
from tasks.reporting.outcome import report_outcome
from tasks.reporting.reporter import Reporter


def run(region_id: int, table_name: str, fetch_concurrency: int) -> None:
    """Fill a table with a region's cheapest sell orders: what differs."""
    with show_nothing():
        no_heartbeats.run(region_id, table_name, fetch_concurrency)


@contextmanager
def show_nothing() -> Iterator[None]:
    """Make flow runs of this process leave no tag, progress, event, artifact or picture until the block ends."""
    later, hooks = Reporter.later, market_data.on_completion_hooks
    Reporter.later = lambda *_, **__: None  # type: ignore[method-assign]
    market_data.on_completion_hooks = [hook for hook in hooks if hook is not report_outcome]
    try:
        yield
    finally:
        Reporter.later = later  # type: ignore[method-assign]
        market_data.on_completion_hooks = hooks
