"""The time and the progress of the states' work."""

import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime

import rich.progress
from prefect.client.orchestration import SyncPrefectClient

from tasks.reporting.artifacts import create_artifact, update_artifact

UPDATE_SECONDS = 0.75  # between two updates of a progress artifact

# Shows a bar for each state of this context whose work can be counted; thread-safe.
bars: ContextVar[rich.progress.Progress | None] = ContextVar("bars", default=None)


@dataclass
class Progress:
    """How much of a state's work is done. `Timing` changes it under its lock; other threads only read it."""

    name: str
    total: int  # 0 if it cannot be counted
    unit: str
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    ended: threading.Event = field(default_factory=threading.Event)

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.unit}"


class Timing:
    """Times the states of one run, and counts their work. Thread-safe."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}  # by state
        self._lock = threading.RLock()
        self._progress: Progress | None = None  # of the current state
        self._bars = bars.get()
        self._bar: rich.progress.TaskID | None = None

    def begin(self, state: str, total: int = 0, unit: str = "") -> None:
        """Begin a state of so much work, if that can be counted, and end the one before; go on with the current one."""
        with self._lock:
            if self._progress and self._progress.name == state:
                return
            self.end()
            self._progress = Progress(state, total, unit)
            self._bar = self._bars.add_task(f"{state}, {unit}", total=total) if self._bars and total else None
            self.show(self._progress, f"begins: {total:,} {unit}" if total else "begins")

    def count(self, number: int) -> None:
        """Add to the current state's work done."""
        with self._lock:
            if self._progress:
                self._progress.done += number
            if self._bars and self._bar is not None:
                self._bars.advance(self._bar, number)

    def end(self, *, well: bool = True) -> None:
        """End the current state; if all went well, work that was not counted came from an earlier attempt."""
        with self._lock:
            if progress := self._progress:
                seconds = time.monotonic() - progress.started
                if well:
                    self.count(progress.total - progress.done)
                self._progress = self._bar = None
                progress.ended.set()
                self.seconds[progress.name] = self.seconds.get(progress.name, 0.0) + seconds
                took = f"ends after {seconds:.2f} s"
                self.show(progress, f"{took}: {progress}" if progress.total else took)

    def show(self, progress: Progress, news: str) -> None:
        """Show that a state begins or ends; does nothing here."""

    def tag(self, last_modified: datetime) -> None:
        """Show which snapshot the run is of; does nothing here."""


def show_progress(client: SyncPrefectClient, progress: Progress) -> None:
    """Keep a progress artifact up to date until the work ends."""
    artifact_id, shown, is_last = "", -1, False
    while not is_last:
        is_last = progress.ended.wait(UPDATE_SECONDS)
        done, text = progress.done, f"{progress.name}: {progress}"
        if artifact_id and done != shown:
            update_artifact(client, artifact_id, 100.0 * done / progress.total, text)
        elif done != shown:
            artifact_id = create_artifact(client, "progress", 100.0 * done / progress.total, text)
        shown = done
