"""Reading many tables at once."""

import random

import pytest

from tasks.table.client import Table
from tasks.table.connection import open_connection
from tasks.table.create import create_missing
from tasks.table.errors import MissingTableError
from tasks.table.read import FEW, read_snapshots

TABLES = 3 * FEW


@pytest.mark.usefixtures("store_url")
def test_missing_table_leaves_few_to_be_read_alone() -> None:
    """Of many tables, of which one is missing, only a few around it have to be read one by one."""
    prefix, missing = f"Batch-{random.getrandbits(64)}", random.randrange(TABLES)
    with open_connection(1) as connection:
        tables = [Table(f"{prefix}-{number}", connection) for number in range(TABLES)]
        for table in tables[:missing] + tables[missing + 1 :]:
            create_missing(table, MissingTableError(""))
        found = read_snapshots(tables)
    assert tables[missing] not in found
    assert len(found) >= TABLES - FEW
    assert set(found.values()) == {None}
