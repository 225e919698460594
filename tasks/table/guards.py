"""What is refused before anything is written."""

from tasks.esi.markets import Market
from tasks.table.errors import TableError
from tasks.table.records import Changes
from tasks.table.snapshot import Snapshot, TableSnapshot, is_newer

HANDFUL = 20  # records that a market may lose at once, however few are left


class ShrinkError(TableError):
    """The snapshot lacks so many of the table's records that it is more likely broken than true."""

    tried = "Nothing: a snapshot that has lost so much is more likely broken than true."
    advice = "Look at the market. If it is true, run once with `force`."


def refuse_older(snapshot: Snapshot, stored: TableSnapshot, table_name: str) -> None:
    """Raise if the table already holds, or is being brought to, a newer snapshot.

    Raises:
        TableError: it does.
    """
    if is_newer(stored, snapshot):
        raise TableError(
            f"table {table_name} has the snapshot of {stored.last_modified} by {stored.owner}, newer than this run's "
            f"of {snapshot.last_modified}: this run wrote nothing"
        )


def refuse_shrunk(changes: Changes, market: Market) -> None:
    """Raise if a market would lose most of its records: more than a handful, and more than are left.

    Raises:
        ShrinkError: it would.
    """
    left = changes.held - len(changes.deletes)
    if 2 * left < changes.held and len(changes.deletes) > HANDFUL:
        raise ShrinkError(
            f"{market} has {changes.wanted:,} records, the table {changes.held:,}: under half of them, "
            f"{left:,}, would be left, so nothing was written; if the market is right, run with force"
        )
