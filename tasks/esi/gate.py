"""What a run's requests wait for before they are sent."""

import time

from tasks.esi.errors import RefusedError
from tasks.esi.pool import Pool
from tasks.network import Waits

RUN_SECONDS = 1200.0  # after these a run sends no more requests; ESI's longest limit is 900 s


class Gate:
    """Lets one run's requests pass: after pauses, with tokens, in time, and only until one of them is refused."""

    def __init__(self, pool: Pool) -> None:
        self.waits = Waits()
        self.refused: RefusedError | None = None  # by it all further requests fail
        self._pool = pool
        self._deadline = time.monotonic() + RUN_SECONDS

    def wait(self, what: str) -> None:
        """Wait until a request may be sent.

        Raises:
            RefusedError: the run would be over by then, or another request of it was refused meanwhile.
            TransientError: the tokens could not be counted.
        """
        self._wait_for_pause(what)
        while self._pool.tokens and (seconds := self._pool.tokens.spend()):
            self._check(what, seconds, "ESI's tokens are used up")
            self.waits.sleep(seconds)

    def _wait_for_pause(self, what: str) -> None:
        while True:
            seconds = self._pool.pause.seconds
            self._check(what, seconds, f"ESI wants {seconds:.0f} s more without a request" if seconds else "time is up")
            if not seconds:
                return
            self.waits.sleep(seconds)

    def _check(self, what: str, seconds: float, why: str) -> None:
        if self.refused:
            raise self.refused
        if time.monotonic() + seconds > self._deadline:
            raise RefusedError(
                f"{what}: {why}, and a run sends no request after {RUN_SECONDS:.0f} s; nothing was stored, the next "
                "run tries again"
            )
