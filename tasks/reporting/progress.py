"""The time and the progress of the states' work."""

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from tasks.reporting.artifacts import create_artifact, update_artifact

UPDATE_SECONDS = 0.75  # between two updates of a progress artifact


# Called with the progress of a state in this context each time that it grows, by one thread at a time: draws a bar.
watcher: ContextVar[Callable[["Progress"], None] | None] = ContextVar("watcher", default=None)


class Progress:
    """How much of a state's work is done. Thread-safe."""

    def __init__(self, name: str, total: int = 0, unit: str = "") -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0
        self._watch = watcher.get()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.unit}"

    def count(self, number: int) -> None:
        """Add to the work done."""
        with self._lock:
            self.done += number
            if self._watch and self.total:
                self._watch(self)

    def end(self, *, well: bool) -> None:
        """End the progress; if all went well, work that was not counted came from an earlier attempt."""
        self.count(self.total - self.done if well else 0)
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait up to so many seconds for the end; return whether it has come."""
        return self._ended.wait(seconds)


class Timing:
    """Times the states of one run, and counts their work. Thread-safe."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}  # by state
        self._lock = threading.RLock()
        self._progress: Progress | None = None  # of the current state
        self._started = 0.0  # monotonic time

    def begin(self, state: str, total: int = 0, unit: str = "") -> None:
        """Begin a state of so much work, if that can be counted, and end the one before; go on with the current one."""
        with self._lock:
            if self._progress and self._progress.name == state:
                return
            self.end()
            self._progress, self._started = Progress(state, total, unit), time.monotonic()
            self.show_begin(self._progress)
            self._progress.count(0)  # shows the bar

    def count(self, number: int) -> None:
        """Add to the current state's work done."""
        if progress := self._progress:
            progress.count(number)

    def end(self, *, well: bool = True) -> None:
        """End the current state."""
        with self._lock:
            if progress := self._progress:
                self._progress, seconds = None, time.monotonic() - self._started
                progress.end(well=well)
                self.seconds[progress.name] = self.seconds.get(progress.name, 0.0) + seconds
                self.show_end(progress, seconds)

    def show_begin(self, progress: Progress) -> None:
        """Show that a state begins; does nothing here."""

    def show_end(self, progress: Progress, seconds: float) -> None:
        """Show that a state ends; does nothing here."""

    def tag(self, last_modified: datetime) -> None:
        """Show which snapshot the run is of; does nothing here."""


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
