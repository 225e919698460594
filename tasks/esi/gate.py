"""Holds a run's requests back until they may be sent."""

import time

from tasks.esi.errors import RefusedError
from tasks.esi.pool import Pool
from tasks.network import Waits

RUN_SECONDS = 1200.0  # for all requests of a run; ESI's longest limit is 900 s


class Gate:
    """Lets one run's requests through: not in a pause, not without tokens, not too late, not after a refusal."""

    def __init__(self, pool: Pool) -> None:
        self.waits = Waits()
        self.refused: RefusedError | None = None  # fails all further requests
        self._pool = pool
        self._deadline = time.monotonic() + RUN_SECONDS

    def wait(self, what: str) -> None:
        """Wait until a request may be sent.

        Raises:
            RefusedError: it would be too late by then, or another request of the run was refused.
            TransientError: the tokens could not be counted.
        """
        while self._pool.tokens and (seconds := self._pool.tokens.spend()):
            self._check(what, seconds, "ESI's tokens are used up")
            self.waits.sleep(seconds)
        self._wait_for_pause(what)

    def _wait_for_pause(self, what: str) -> None:
        while True:
            seconds = self._pool.pause.seconds
            self._check(what, seconds, f"ESI requires a pause of {seconds:.0f} s more" if seconds else "time is up")
            if not seconds:
                return
            self.waits.sleep(seconds)

    def _check(self, what: str, seconds: float, why: str) -> None:
        if self.refused:
            raise self.refused
        if time.monotonic() + seconds > self._deadline:
            raise RefusedError(
                f"{what}: {why}, and a run sends no requests after {RUN_SECONDS:.0f} s; nothing was stored, the next "
                "run tries again"
            )
