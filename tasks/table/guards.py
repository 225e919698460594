"""Refuses snapshots that must not be written."""

from datetime import timedelta

from tasks.table.errors import TableError
from tasks.table.records import Changes
from tasks.table.snapshot import MOST_AHEAD, Marker, Snapshot, SourceSnapshot, is_newer

HANDFUL = 20  # records that any market may lose at once


class ShrinkError(TableError):
    """The snapshot has lost so many records that it is more likely broken than right."""

    tried = "Nothing was written: a snapshot that has lost so much is more likely broken than right."
    advice = "Check the market or source. If it is right, run once with `force`."


def refuse_older(snapshot: Snapshot, stored: Marker, table_name: str, most_ahead: timedelta = MOST_AHEAD) -> None:
    """Raise a TableError if the table has, or is being updated to, a newer snapshot."""
    if is_newer(stored, snapshot, most_ahead):
        raise TableError(
            f"table {table_name} has the snapshot of {stored.last_modified} by {stored.owner}, newer than this run's "
            f"of {snapshot.last_modified}: nothing was written"
        )


def refuse_unknown(changes: Changes, stored: Marker | None, blank: Marker, table_name: str) -> None:
    """Raise a TableError if a source's table has records that no run has stored: they would be deleted."""
    if stored is None and isinstance(blank, SourceSnapshot) and changes.held:
        raise TableError(
            f"table {table_name} has {changes.held:,} items but no #snapshot of {blank.source}, so they may be another "
            "program's: give an empty table, or run with force to replace them"
        )


def refuse_shrunk(changes: Changes, name: str, thing: str = "the market") -> None:
    """Raise a ShrinkError if a target would lose over half of its records, and more than `HANDFUL`."""
    left = changes.held - len(changes.deletes)
    if 2 * left < changes.held and len(changes.deletes) > HANDFUL:
        raise ShrinkError(
            f"{name} has {changes.wanted:,} records, the table {changes.held:,}: under half of them, "
            f"{left:,}, would be left, so nothing was written; if {thing} is right, run with force"
        )
