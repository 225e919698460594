"""What earlier runs of a table did, from the events that they sent, and its pictures."""

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from pydantic import ValidationError

from tasks.reporting.pictures import RUNS, draw_pictures
from tasks.reporting.summary import Summary


def draw_history(client: SyncPrefectClient, summary: Summary) -> dict[str, bytes]:
    """Draw a run that ends beside those before it, made-up orders and real ones never together: see `draw_pictures`."""
    before = read_history(client, summary.region_id, summary.table_name, RUNS)
    alike = [run for run in before if run != summary and run.is_made_up == summary.is_made_up]
    return draw_pictures([summary, *alike])


def read_history(client: SyncPrefectClient, region_id: int, table_name: str, limit: int) -> list[Summary]:
    """Return the summaries of a table's runs that stored something, the newest first, as long as Prefect keeps events.

    Those that another version has written and this one does not understand are left out.
    """
    wanted = EventFilter(
        event=EventNameFilter(name=["market.snapshot.stored"]),
        resource=EventResourceFilter(id=[f"market.region.{region_id}"]),
    )
    events = client.read_events(wanted, limit=limit).events
    summaries = (understand(event.payload) for event in events)
    return [summary for summary in summaries if summary and summary.table_name == table_name]


def understand(payload: dict[str, object]) -> Summary | None:
    """Return the summary that an event carries, None if there is none that this version knows."""
    try:
        return Summary.model_validate(payload)
    except ValidationError:
        return None
