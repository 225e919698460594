"""Backoff for throttled calls."""

import random

STALLED_CALLS = 24  # in a row, about two minutes; then Prefect retries
FIRST_WAIT_SECONDS = 0.05
MAX_WAIT_SECONDS = 10.0
MAX_DOUBLINGS = 8  # of the first wait, to the longest


class Pace:
    """Exponential backoff with jitter, shorter after progress."""

    def __init__(self) -> None:
        self.stalled = 0  # calls in a row without progress
        self._doublings = 0

    def note(self, *, progress: bool) -> float | None:
        """Note whether a call made progress, and draw the next wait (s); None after `STALLED_CALLS` without any."""
        self.stalled = 0 if progress else self.stalled + 1
        self._doublings = min(max(self._doublings + (-1 if progress else 1), 0), MAX_DOUBLINGS)
        longest = min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**self._doublings)
        return random.uniform(longest / 2, longest) if self.stalled < STALLED_CALLS else None  # noqa: S311 (spreads waits)
