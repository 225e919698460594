"""How long a run has waited, each second once, however many of its threads wait at the same time."""

import time


class Waits:
    """Spans of waiting time."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []  # monotonic times

    def sleep(self, seconds: float) -> None:
        """Waits."""
        begun = time.monotonic()
        time.sleep(seconds)
        self.add(begun)

    def add(self, begun: float) -> None:
        """Adds the time from `begun`, by the monotonic clock, until now."""
        self._spans.append((begun, time.monotonic()))

    @property
    def seconds(self) -> float:
        """The length of all spans together, where they overlap counted once."""
        total, covered = 0.0, float("-inf")
        for begun, ended in sorted(self._spans):
            total += max(0.0, ended - max(begun, covered))
            covered = max(covered, ended)
        return total
