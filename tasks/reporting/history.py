"""A table's earlier runs, from their events, as pictures."""

from contextlib import suppress

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.filters import EventFilter
from pydantic import ValidationError

from tasks.reporting.pictures import RUNS, draw_pictures
from tasks.reporting.summary import Summary


def draw_history(client: SyncPrefectClient, summary: Summary) -> dict[str, bytes]:
    """Draw a run and earlier ones of its kind, made-up orders or real ones; see `draw_pictures`."""
    before = read_history(client, summary.region_id, summary.table_name, RUNS)
    alike = [run for run in before if run != summary and run.is_made_up == summary.is_made_up]
    return draw_pictures([summary, *alike])


def read_history(client: SyncPrefectClient, region_id: int, table_name: str, limit: int) -> list[Summary]:
    """Return the summaries of a table's runs that stored something, newest first, while Prefect keeps their events.

    Summaries of other versions that do not parse are left out.
    """
    stored = {"event": {"name": ["market.snapshot.stored"]}, "resource": {"id": [f"market.region.{region_id}"]}}
    summaries: list[Summary] = []
    for event in client.read_events(EventFilter.model_validate(stored), limit=limit).events:
        with suppress(ValidationError):
            summaries.append(Summary.model_validate(event.payload))
    return [summary for summary in summaries if summary.table_name == table_name]
