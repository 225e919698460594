"""Starts a Prefect server on a copy of a migrated database: migrations take longer than the rest of its start.

Arguments: the file of the server's database, then the server's command. The first to come migrates a database for all.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".local"  # kept for the next tests


def find_migrated(prefect: str) -> Path:
    """Return a database as this version's migrations make it; make it if it is not there.

    Args:
        prefect: the path of Prefect's command.
    """
    FOLDER.mkdir(exist_ok=True)
    migrated = FOLDER / f"migrated-{version('prefect')}.db"
    with migrated.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not migrated.exists():
            part = migrated.with_suffix(".part")
            part.unlink(missing_ok=True)
            environ = os.environ | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{part}"}
            subprocess.run([prefect, "server", "database", "upgrade", "--yes"], env=environ, check=True)
            part.rename(migrated)
    return migrated


if __name__ == "__main__":
    database, command = Path(sys.argv[1]), sys.argv[2:]
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(find_migrated(command[0]), database)
    os.execv(command[0], command)
