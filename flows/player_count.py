"""The flow `player_count`: adds an item with the number of players online to a DynamoDB table."""

from datetime import datetime

import msgspec
from prefect import flow, task

from flows import parameters
from flows.next_run import as_deployed
from tasks.esi.client import Esi
from tasks.reporting import telemetry
from tasks.retries import NOT_KEPT, RETRIED
from tasks.store_item import store_item
from tasks.table.client import Table

telemetry.set_up()


class Status(msgspec.Struct, frozen=True):
    """The stored fields of `GET /status`."""

    players: int
    server_version: str
    start_time: str  # of the server, ISO 8601, UTC


@task(name="Get Status", **RETRIED, **NOT_KEPT)
def get_status(esi: Esi) -> tuple[Status, datetime]:
    """Return the server's status, and the time of the response, UTC."""
    return esi.get_json("/status", Status)


@as_deployed
@flow(name="player-count", persist_result=False)
def player_count(table_name: parameters.TableName = "PlayerCount", keep_days: parameters.KeepDays = None) -> str:
    """Store how many players are online, under the time of the response, and return this key.

    Raises:
        EsiError: no usable response from ESI; nothing was stored.
        TableError: the table refused.
    """
    with Esi.from_environment(fetch_concurrency=1) as esi, Table(table_name) as table:
        status, answered = get_status(esi)
        return store_item(msgspec.to_builtins(status), answered, table, keep_days)


if __name__ == "__main__":
    from flows.command import run_flow

    raise SystemExit(run_flow(player_count, "python -m flows.player_count"))
