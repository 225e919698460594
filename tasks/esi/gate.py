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

    def wait(self, what: str, api: str) -> None:
        """Wait until a request to an API may be sent.

        Raises:
            RefusedError: it would be too late by then, or another request of the run was refused.
            TransientError: the tokens could not be counted.
        """
        while True:
            # The pause first: a token must be spent when its request is sent, not before the pause.
            if seconds := self._pool.pause.seconds:
                self._sleep(seconds, f"{what}: {api} requires a pause of {seconds:.0f} s more")
            elif self._pool.tokens and (seconds := self._pool.tokens.spend()):
                self._sleep(seconds, f"{what}: {api}'s tokens are used up")
            else:
                break
        self._sleep(0, f"{what}: time is up")

    def _sleep(self, seconds: float, why: str) -> None:
        if self.refused:
            raise self.refused
        if time.monotonic() + seconds > self._deadline:
            raise RefusedError(
                f"{why}, and a run sends no requests after {RUN_SECONDS:.0f} s; nothing was stored, the next run tries "
                "again"
            )
        if seconds:
            self.waits.sleep(seconds)
