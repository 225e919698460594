"""Pauses that a server demands: until one is over, this process sends no requests to that address."""

import threading
import time
from functools import cache


class Pause:
    """The pause for one address. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0  # monotonic time

    def extend(self, seconds: float) -> None:
        """Pause for at least so many seconds from now."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    @property
    def seconds(self) -> float:
        """How long the pause still lasts; 0 if it is over."""
        return max(0.0, self._until - time.monotonic())


@cache
def find_pause(_url: str) -> Pause:
    """Return the pause for an address, shared by all clients of this process: ESI's limits are per IP address."""
    return Pause()
