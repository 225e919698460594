"""How long the states of a run take, and how far their work has come."""

import threading
import time
from datetime import datetime

from tasks.reporting.progress import Progress


class Timing:
    """Times the states of one run, and counts their work. Several threads may use it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}  # by state
        self._lock = threading.Lock()
        self._progress: Progress | None = None  # of the present state
        self._started = 0.0  # monotonic time

    def begin(self, state: str, total: int = 0, unit: str = "") -> None:
        """Note that a state begins, and so the one before ends; do nothing if this one is under way.

        Args:
            state: its name.
            total: how much work it has, if that can be counted.
            unit: of the work.
        """
        with self._lock:
            if self._progress and self._progress.name == state:
                return
            self._end(well=True)
            self._progress, self._started = Progress(state, total, unit), time.monotonic()
            self.show_begin(self._progress)

    def count(self, number: int) -> None:
        """Count work of the present state that is done."""
        if self._progress:
            self._progress.count(number)

    def end(self, *, well: bool = True) -> None:
        """Note that the present state ends."""
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
        """Show that a state begins; here it is only timed."""

    def show_end(self, progress: Progress, seconds: float) -> None:
        """Show that a state ends; here it is only timed."""

    def tag(self, region_id: int, last_modified: datetime) -> None:
        """Show which snapshot the run is of; here nothing does."""
