"""Spaces requests evenly, below an API's limit."""

import threading
import time

import httpx


class Rate:
    """So many requests a second, of one run. Thread-safe; used where `Tokens` are.

    Args:
        requests_per_second: never exceeded.
    """

    def __init__(self, requests_per_second: float) -> None:
        self._seconds = 1 / requests_per_second
        self._next = 0.0  # monotonic time
        self._lock = threading.Lock()

    def expect(self, requests: int) -> None:
        """Announce requests; nothing is reserved."""

    def spend(self) -> float:
        """Return 0 if a request may be sent now, else the seconds to wait before trying again."""
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return self._next - now
            self._next = now + self._seconds
            return 0.0

    def note_answer(self, headers: httpx.Headers) -> None:
        """Note a response; its headers say nothing here."""

    def pause_all(self, seconds: float) -> None:
        """Pause other processes; there are none that share the rate."""
