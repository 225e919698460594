"""Pauses that a server asks for: until one is over, nothing in this process sends a request to that address."""

import threading
import time
from functools import cache


class Pause:
    """The pause of one address. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0  # monotonic time

    def extend(self, seconds: float) -> None:
        """Pause for so many seconds from now; a longer pause that is already on stays as it is."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def end(self) -> None:
        """End the pause."""
        with self._lock:
            self._until = 0.0

    @property
    def seconds(self) -> float:
        """How long it still lasts; 0 if it is over."""
        with self._lock:
            return max(0.0, self._until - time.monotonic())


@cache
def find_pause(_url: str) -> Pause:
    """Return the pause of an address, the same for all clients of this process: ESI counts neither runs nor threads."""
    return Pause()
