"""The progress of a state's work."""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from tasks.reporting.artifacts import create_artifact, update_artifact

UPDATE_SECONDS = 0.75  # between two updates of a progress artifact


class Progress:
    """How much of a state's work is done. Thread-safe."""

    def __init__(self, name: str, total: int = 0, unit: str = "") -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0
        self.watch: Callable[[Progress], None] | None = None  # see `Watcher`
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.unit}"

    def count(self, number: int) -> None:
        """Add to the work done."""
        with self._lock:
            self.done += number
        if self.watch:
            self.watch(self)

    def end(self, *, well: bool) -> None:
        """End the progress; if all went well, work that was not counted came from an earlier attempt."""
        self.count(self.total - self.done if well else 0)
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait up to so many seconds for the end; return whether it has come."""
        return self._ended.wait(seconds)


Watcher = Callable[[Progress], None]  # called with a state's progress when it begins and each time that it grows
watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)  # of the flow runs in this context


def show_progress(client: SyncPrefectClient, progress: Progress) -> None:
    """Keep a progress artifact up to date until the work ends; the next update makes up for a failed one."""
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
