"""How far the work of a state has come."""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from tasks.reporting.artifacts import create_artifact, update_artifact

UPDATE_SECONDS = 0.5  # between two updates of a progress artifact


class Progress:
    """How much of a state's work is done. Threads that do the work count it; others read it."""

    def __init__(self, name: str, total: int = 0, unit: str = "") -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.unit}"

    def count(self, number: int) -> None:
        """Count work that is done."""
        with self._lock:
            self.done += number

    def end(self, *, well: bool) -> None:
        """Say that the work has ended; if well, what was not counted had been kept from an earlier attempt."""
        self.done = self.total if well else self.done
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, so many seconds at most, and return whether it has come."""
        return self._ended.wait(seconds)


# Is called with each state's progress in this context, such as to draw a bar.
watcher: ContextVar[Callable[[Progress], None] | None] = ContextVar("watcher", default=None)


def show_progress(client: SyncPrefectClient, progress: Progress) -> None:
    """Keep a progress artifact up to date until the work has ended; an update that fails is made up for by the next.

    Args:
        client: of Prefect's API.
        progress: of work that has a total.
    """
    artifact_id: UUID | None = None
    shown = -1
    is_last = False
    while not is_last:
        is_last = progress.wait(UPDATE_SECONDS)
        done, text = progress.done, f"{progress.name}: {progress}"
        if done == shown:
            continue
        try:
            if artifact_id is None:
                artifact_id = create_artifact(client, "progress", 100.0 * done / progress.total, text)
            else:
                update_artifact(client, artifact_id, 100.0 * done / progress.total, text)
            shown = done
        except Exception:
            if is_last:
                raise
