"""Store Item: puts an endpoint's values as one item, under the time of the response."""

from datetime import datetime, timedelta

from prefect import task

from tasks.retries import NOT_KEPT, RETRIED
from tasks.table.client import Table
from tasks.table.create import create_missing
from tasks.table.errors import MissingTableError


@task(name="Store Item", **RETRIED, **NOT_KEPT)
def store_item(values: dict[str, str | float], answered: datetime, table: Table, keep_days: int | None = None) -> str:
    """Put the values under the time of the response, and return that key; create a missing table on this machine."""
    item = make_item(values, answered, keep_days)
    try:
        table.put(item)
    except MissingTableError as error:
        create_missing(table, error)
        table.put(item)
    return str(item["pk"])


def make_item(values: dict[str, str | float], answered: datetime, keep_days: int | None) -> dict[str, str | float]:
    """Return an item: `pk` (ISO 8601, UTC), the values, and with `keep_days` also `expires_at` (unix time).

    DynamoDB removes it after that, if the table's TTL attribute is `expires_at`.
    """
    expires = {"expires_at": int((answered + timedelta(days=keep_days)).timestamp())} if keep_days else {}
    return {"pk": f"{answered:%Y-%m-%dT%H:%M:%SZ}", **values, **expires}
