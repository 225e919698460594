"""The floor: a flow run with nothing in it."""

from prefect import flow

from benchmarks.heartbeats import stop_heartbeats


def run(_region_id: int, _table_name: str, _fetch_concurrency: int) -> None:
    """Run the flow, without heartbeats."""
    with stop_heartbeats():
        no_tasks()


@flow(name="no-tasks")
def no_tasks() -> None:
    """Do nothing."""
