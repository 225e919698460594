"""The flow `player_count`: how many players are online, as one item more in a DynamoDB table."""

import sys
from datetime import datetime, timedelta

import msgspec
from prefect import flow, task

from tasks.esi import Esi
from tasks.parameters import KeepDays, TableName
from tasks.retries import NOT_KEPT, RETRIED
from tasks.table import Table


class Status(msgspec.Struct, frozen=True):
    """What `GET /status` says, as far as it is stored."""

    players: int
    server_version: str
    start_time: str  # of the server, ISO 8601, UTC


@task(name="Get Status", **RETRIED, **NOT_KEPT)
def get_status(esi: Esi) -> tuple[Status, datetime]:
    """Gives the server's status, and the time of the answer, UTC."""
    return esi.get_json("/status", Status)


@task(name="Store Item", **RETRIED, **NOT_KEPT)
def store_item(status: Status, answered: datetime, table: Table, keep_days: int | None) -> str:
    """Puts the status under the time of the answer, and gives that key."""
    pk = f"{answered:%Y-%m-%dT%H:%M:%SZ}"
    expires = {"expires_at": int((answered + timedelta(days=keep_days)).timestamp())} if keep_days else {}
    table.put({"pk": pk} | msgspec.to_builtins(status) | expires)
    return pk


@flow(name="player-count", description="Stores how many players are online.", persist_result=False)
def player_count(table_name: TableName = "PlayerCount", keep_days: KeepDays = None) -> str:
    """Stores how many players are online, under the time of the answer.

    Args:
        table_name: The DynamoDB table, with partition key pk (S).
        keep_days: After so many days DynamoDB may remove the item, by its attribute expires_at; for ever if not given.

    Returns:
        The item's key.

    Raises:
        EsiError: ESI gave no answer; nothing was stored.
        TableError: the table, by its name, refused.
    """
    with Esi.from_environment(fetch_concurrency=1) as esi, Table(table_name, store_concurrency=1) as table:
        status, answered = get_status(esi)
        return store_item(status, answered, table, keep_days)


if __name__ == "__main__":
    from deployments.command import run_flow

    sys.exit(run_flow(player_count, "python -m flows.player_count"))
