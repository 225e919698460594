"""Fixtures of the DynamoDB client's tests."""

from collections.abc import Iterator

import pytest

from tasks.table.client import Table
from tasks.table.create import create


@pytest.fixture
def table(store_url: str, table_name: str) -> Iterator[Table]:
    """Yield a new table."""
    assert store_url
    with Table(table_name, 4) as opened:
        create(opened)
        yield opened
