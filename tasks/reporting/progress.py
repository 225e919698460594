"""How far a state's work has come."""

import threading
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from tasks.reporting.artifacts import create_artifact, update_artifact

UPDATE_SECONDS = 0.5  # between two updates of a progress artifact


class Work(Protocol):
    """A part of a state's work: a chunk of pages, or a part of the writes."""

    @property
    def total(self) -> int:
        """How many units it has."""

    @property
    def done(self) -> int:
        """How many of them are done."""


class Progress:
    """How far a state's work has come, in words and as an artifact."""

    def __init__(self, name: str, work: Sequence[Work], unit: str) -> None:
        self.name = name
        self.unit = unit
        self._work = work
        self.total = sum(part.total for part in work)
        self._shown: tuple[UUID, int] | None = None  # the artifact, and the count that it shows
        self._ended = threading.Event()
        self._ended_well = False

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.unit}"

    @property
    def done(self) -> int:
        """How much is done. Of work that has ended well, parts that were not begun are kept from an earlier attempt."""
        return sum((part.done or part.total) if self._ended_well else part.done for part in self._work)

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will be done."""
        return self._ended.is_set()

    def end(self, *, well: bool = False) -> None:
        """Say that the work has ended; what has ended well stays so."""
        self._ended_well = self._ended_well or well
        self._ended.set()

    def follow(self, client: SyncPrefectClient) -> None:
        """Keep the artifact up to date until the work has ended; what cannot be shown now is shown a bit later."""
        while True:
            is_last = self._ended.wait(UPDATE_SECONDS)
            try:
                self.show(client)
            except Exception:
                if is_last:
                    raise
            if is_last:
                return

    def show(self, client: SyncPrefectClient) -> None:
        """Create the artifact, or update it if there is news."""
        done, words = self.done, f"{self.name}: {self}"
        percent = 100.0 * done / self.total
        if self._shown is None:
            self._shown = create_artifact(client, "progress", percent, words), done
        elif done != self._shown[1]:
            update_artifact(client, self._shown[0], percent, words)
            self._shown = self._shown[0], done
