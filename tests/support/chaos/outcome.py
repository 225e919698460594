"""What came of runs under faults."""

from collections import Counter

import msgspec


class Outcome(msgspec.Struct):
    """What came of a schedule, or of many."""

    tables: Counter[str] = msgspec.field(default_factory=Counter)  # by what they keep
    runs: int = 0
    failed: Counter[str] = msgspec.field(default_factory=Counter)  # by error; each cleanly
    injected: Counter[str] = msgspec.field(default_factory=Counter)  # faults by kind
    reads: int = 0

    def add(self, other: "Outcome") -> None:
        """Add another's counts."""
        self.tables += other.tables
        self.runs += other.runs
        self.reads += other.reads
        self.failed += other.failed
        self.injected += other.injected
