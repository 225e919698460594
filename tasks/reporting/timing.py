"""Times the states of a run, and counts their work."""

import threading
import time
from datetime import datetime

from tasks.reporting.progress import Progress


class Timing:
    """Times the states of one run, and counts their work. Thread-safe."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}  # by state
        self._lock = threading.Lock()
        self._progress: Progress | None = None  # of the current state
        self._started = 0.0  # monotonic time

    def begin(self, state: str, total: int = 0, unit: str = "") -> None:
        """Begin a state of so much work, if that can be counted, and end the one before; unless it is the current one."""
        with self._lock:
            if self._progress and self._progress.name == state:
                return
            self._end(well=True)
            self._progress, self._started = Progress(state, total, unit), time.monotonic()
            self.show_begin(self._progress)

    def count(self, number: int) -> None:
        """Add to the current state's work done."""
        if progress := self._progress:
            progress.count(number)

    def end(self, *, well: bool = True) -> None:
        """End the current state."""
        with self._lock:
            self._end(well=well)

    def _end(self, *, well: bool) -> None:
        if not self._progress:
            return
        progress, seconds = self._progress, time.monotonic() - self._started
        progress.end(well=well)
        self.seconds[progress.name] = self.seconds.get(progress.name, 0.0) + seconds
        self._progress = None
        self.show_end(progress, seconds)

    def show_begin(self, progress: Progress) -> None:
        """Show that a state begins; does nothing here."""

    def show_end(self, progress: Progress, seconds: float) -> None:
        """Show that a state ends; does nothing here."""

    def tag(self, last_modified: datetime) -> None:
        """Show which snapshot the run is of; does nothing here."""
