"""What holds requests back: pauses that a server demands, and limits on their number."""

import threading
import time
from functools import cache

import httpx


class Pause:
    """A pause for one address: until it is over, this process sends no requests there. Thread-safe."""

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


class Limit:
    """A limit on requests; this base class holds none back. Thread-safe."""

    def expect(self, requests: int) -> None:
        """Announce how many requests will be made."""

    def spend(self) -> float:
        """Count a request and return 0, or return the seconds to wait before trying again."""
        return 0.0

    def note_answer(self, headers: httpx.Headers) -> None:
        """Note the counts in a response's headers."""

    def pause_all(self, seconds: float) -> None:
        """Pause every other process that shares the limit."""


UNLIMITED = Limit()


class Rate(Limit):
    """So many requests a second, evenly spaced, of one run."""

    def __init__(self, requests_per_second: float) -> None:
        self._seconds = 1 / requests_per_second
        self._next = 0.0  # monotonic time
        self._lock = threading.Lock()

    def spend(self) -> float:
        """Return 0 if a request may be sent now, else the seconds to wait before trying again."""
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return self._next - now
            self._next = now + self._seconds
            return 0.0
