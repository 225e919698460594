"""Store Item: what an endpoint says, as one item under the time of the answer."""

from datetime import datetime, timedelta

from prefect import task

from tasks.retries import NOT_KEPT, RETRIED
from tasks.table.client import Table
from tasks.table.create import create_missing
from tasks.table.errors import MissingTableError


@task(name="Store Item", **RETRIED, **NOT_KEPT)
def store_item(values: dict[str, str | float], answered: datetime, table: Table, keep_days: int | None = None) -> str:
    """Put the values under the time of the answer, and return that key; a missing table on this machine is created."""
    item = make_item(values, answered, keep_days)
    try:
        table.put(item)
    except MissingTableError as error:
        create_missing(table, error)
        table.put(item)
    return str(item["pk"])


def make_item(values: dict[str, str | float], answered: datetime, keep_days: int | None) -> dict[str, str | float]:
    """Return an item: `pk`, the time in ISO 8601, UTC; the values; and `expires_at`, unix time, with `keep_days`.

    DynamoDB removes it some time after that, if the table's TTL attribute is `expires_at`.
    """
    expires = {"expires_at": int((answered + timedelta(days=keep_days)).timestamp())} if keep_days else {}
    return {"pk": f"{answered:%Y-%m-%dT%H:%M:%SZ}", **values, **expires}
