"""Prefect's floor: a flow without tasks, whose first statement connects to the market."""

import os
import socket
from urllib.parse import urlsplit

from prefect import flow


def run(_region_ids: list[int], _table_name: str, _fetch_concurrency: int) -> None:
    """Run the flow."""
    no_tasks()


@flow(name="no-tasks")
def no_tasks(url: str = "") -> None:  # Prefect imports pydantic.v1 for any flow with a parameter
    """Send a byte to the market."""
    market = urlsplit(url or os.environ["ESI_URL"])
    with socket.create_connection((market.hostname, market.port)) as connection:
        connection.send(b"\n")
