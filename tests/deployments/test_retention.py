"""Prefect's database does not grow without limit."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.runs import run_command
from tests.support.servers import PrefectServer, wait_for

pytestmark = pytest.mark.usefixtures("served", "store_url")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    """Yield a separate Prefect server, also for the commands that the test runs."""
    started = PrefectServer(tmp_path)
    for name, value in started.settings.items():
        monkeypatch.setenv(name, value)
    yield started
    started.stop()


def test_old_runs_and_events_are_removed(server: PrefectServer, commands: Commands, table_name: str) -> None:
    """Events of task runs are removed after a day, a run with its logs and artifacts after a week."""
    assert run_command(commands, table_name) == 0
    wait_for(lambda: count(server, "events", "event = 'market.snapshot.stored'") == 1, "the run's event")
    age(server, "events", "occurred", timedelta(days=2))
    wait_for(lambda: count(server, "events", "event LIKE 'prefect.task-run.%'") == 0, "the removal of events")
    assert count(server, "events", "event = 'market.snapshot.stored'") == 1
    tables = ("flow_run", "task_run", "artifact")
    assert all(count(server, table) for table in tables)
    age(server, "flow_run", "end_time", timedelta(days=8))
    wait_for(lambda: not any(count(server, table) for table in tables), "the removal of the run")


def count(server: PrefectServer, table: str, where: str = "1") -> int:
    """Return the number of rows in a table of Prefect's database."""
    with closing(sqlite3.connect(server.home / "prefect.db", timeout=30)) as database:
        return int(database.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])


def age(server: PrefectServer, table: str, column: str, by: timedelta) -> None:
    """Make all rows of a table older."""
    then = f"{datetime.now(UTC) - by:%Y-%m-%d %H:%M:%S.%f}"
    with closing(sqlite3.connect(server.home / "prefect.db", timeout=30)) as database, database:
        database.execute(f"UPDATE {table} SET {column} = ?", (then,))
