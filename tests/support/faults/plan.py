"""Which requests go wrong, and how: a plan that is drawn from a seed, and so can be drawn again."""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """What goes wrong, and where."""

    kind: str
    where: str = ""  # the market's page number or HEAD, the store's operation; empty for any
    times: int = 1
    skip: int = 0  # so many requests that it could hit go well first
    probability: float = 1.0  # of each that it can hit
    after_seconds: float = 0.0  # since the plan was made


class Plan:
    """Faults that are still to come, and a count of those that came."""

    def __init__(self, faults: list[Fault], seed: int = 0) -> None:
        self.injected: Counter[str] = Counter()  # by kind
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.start(faults)

    def start(self, faults: Sequence[Fault]) -> None:
        """Let these faults come, and no others."""
        with self._lock:
            self._faults = list(faults)
            self._left = [fault.times for fault in faults]
            self._skip = [fault.skip for fault in faults]
            self._started = time.monotonic()

    def next_fault(self, where: str) -> str:
        """Return the kind of fault that a request gets, nothing if it goes well."""
        with self._lock:
            for number, fault in enumerate(self._faults):
                late = time.monotonic() - self._started >= fault.after_seconds
                if not self._left[number] or fault.where not in {"", where} or not late:
                    continue
                if self._skip[number]:
                    self._skip[number] -= 1
                elif self._random.random() < fault.probability:
                    self._left[number] -= 1
                    self.injected[fault.kind] += 1
                    return fault.kind
        return ""

    def stop(self) -> None:
        """Let all that comes go well."""
        self.start([])
