"""ESI's tokens, which all workers share through a limit on Prefect's server: see `shared_limit`.

ESI gives an IP address 12,000 tokens in any 15 minutes and then answers 429; a page costs 2. Workers reserve tokens in
batches. The limit frees slots evenly, ESI each token 15 minutes after its use. So once few are left, the limit is set
to ESI's last count, less a margin for what other workers may have reserved. If ESI gives fewer tokens than the limit
has, the limit is lowered to ESI's. A killed worker's slots are freed like all others.

A thread of its own calls Prefect's API, ahead of need, so that requests seldom wait for it.
"""

import contextvars
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import httpx
import msgspec
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger, get_run_logger
from prefect.settings import PREFECT_API_URL

from tasks.esi.errors import RefusedError, TransientError
from tasks.esi.pause import Limit
from tasks.esi.shared_limit import LEAST_TOKENS, LIMIT, TOKENS, WINDOW_SECONDS, InactiveError, SharedLimit

FEWEST_TOKENS = 100  # a smaller limit of ESI's is ignored: it would stop all workers for good
REQUEST_TOKENS = 2  # the cost of a page or a HEAD
LOOK_SECONDS = 1.0  # at most, between checks for a shared pause
MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.2, 5.0  # between reads of the limit
# Refusals in a row, and their time, after which a limit with free slots is no longer used.
PATIENCE, PATIENCE_SECONDS = 5, 120.0
KNOWN_SECONDS = 5.0  # how long ESI's last count is valid
GIVEN_UP = (
    "the limit %s has refused %d times in %.0f s although slots were free: this run no longer counts ESI's tokens; "
    "delete the limit and recreate it with python -m deployments.automations"
)


class Allowance(msgspec.Struct, frozen=True):
    """The token counts of ESI's last response; before the first one, ESI's documented ones."""

    left: int = TOKENS
    of: int = TOKENS
    window_seconds: float = WINDOW_SECONDS
    read_at: float = float("-inf")  # monotonic time

    @property
    def is_scarce(self) -> bool:
        """Whether under a fifth is left: then batches are small, and the limit follows ESI's counts."""
        return self.left < self.of / 5

    @property
    def margin(self) -> int:
        """Tokens never reserved: 800 of 12,000."""
        return self.of // 15

    @property
    def batch(self) -> int:
        """The most to reserve at once: 120 of 12,000; 20 when they are scarce."""
        return self.of // (600 if self.is_scarce else 100)

    def full(self, limit: GlobalConcurrencyLimitResponse) -> int:
        """Return the most slots that can be taken without a pause: the margin is at most half of the limit."""
        return limit.limit + min(self.margin, limit.limit // 2)

    def pause_seconds(self, limit: GlobalConcurrencyLimitResponse) -> float:
        """Return how long the pause lasts that a limit shows, 0 if none."""
        return max(0.0, (limit.active_slots - self.full(limit)) / limit.slot_decay_per_second)


class TokenBucket(Limit):
    """ESI's tokens, for one run; those for `requests` are reserved at once. Use it as a context manager; thread-safe.

    `spend` and `pause_all` raise a TransientError if Prefect's server is unreachable: then Prefect retries the state.
    """

    def __init__(self, requests: int = 0) -> None:
        self._lock = threading.Lock()  # never held during a call
        self._limit = SharedLimit()  # used on its own thread only
        self._counts = bool(PREFECT_API_URL.value())  # whether there is a limit, as far as is known
        self._reserved = 0  # tokens not yet spent
        self._expected = 0  # tokens still to be reserved for announced requests
        self._allowance = Allowance()
        self._wait_until = 0.0  # monotonic time
        self._refusals: list[float] = []  # monotonic times of those in a row
        self._logger = get_run_logger() if FlowRunContext.get() else get_logger(__name__)
        self._context = contextvars.copy_context()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self._ahead = self._start(self._ask, requests * REQUEST_TOKENS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._counts = False
        self._thread.submit(self._context.run, self._limit.close)
        self._thread.shutdown(wait=False)

    def expect(self, requests: int) -> None:
        """Announce how many requests will be made, so that tokens are reserved in few batches."""
        with self._lock:
            self._expected += requests * REQUEST_TOKENS
            self._look_ahead()

    def spend(self) -> float:
        """Spend a request's tokens and return 0, or return the seconds to wait before trying again."""
        while self._counts:
            with self._lock:
                now = time.monotonic()
                if self._wait_until > now:
                    return self._wait_until - now
                self._look_ahead()
                if self._reserved >= REQUEST_TOKENS and now - self._limit.read_at <= LOOK_SECONDS:
                    self._reserved -= REQUEST_TOKENS
                    return 0.0
                ahead = self._ahead
            ahead.result()
        return 0.0

    def note_answer(self, headers: httpx.Headers) -> None:
        """Note a response's headers: its cost, and how many tokens are left, of how many."""
        used, left, of = (headers.get(f"X-Ratelimit-{name}", "") for name in ("Used", "Remaining", "Limit"))
        with self._lock:
            if re.fullmatch(r"[0-5]", used):  # a request costs 5 at most
                self._reserved += REQUEST_TOKENS - int(used)
            rate = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,4})([smh])", of)
            if re.fullmatch(r"[0-9]{1,9}", left) and rate:
                window_seconds = int(rate[2]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[rate[3]]
                self._allowance = Allowance(int(left), int(rate[1]), window_seconds, time.monotonic())

    def pause_all(self, seconds: float) -> None:
        """Pause all runs, `WINDOW_SECONDS` at most, by taking more slots than there are."""
        self._start(self._pause_all, min(seconds, WINDOW_SECONDS)).result()

    def _start(self, function: Callable[..., None], *args: Any) -> "Future[None]":  # noqa: ANN401
        """Call a function on the limit's thread, in the context of the run, unless there is no limit."""

        def call() -> None:
            try:
                if self._counts:
                    function(*args)
            except (ObjectNotFound, InactiveError):
                self._counts = False
            except httpx.HTTPError as error:
                raise TransientError(
                    f"ESI's tokens, {LIMIT} on Prefect's server, could not be counted: {type(error).__name__}: {error}",
                    "Prefect's server",
                ) from error

        return self._thread.submit(self._context.run, call)

    def _pause_all(self, seconds: float) -> None:
        limit = self._limit.read()
        if self._allowance.pause_seconds(limit) < seconds:
            slots = self._allowance.full(limit) + seconds * limit.slot_decay_per_second
            self._limit.update(active_slots=round(slots))

    def _look_ahead(self) -> None:
        """Reserve tokens before they run out, or look for a pause before the last look is too old."""
        if not self._ahead.done():
            return
        batch = self._allowance.batch
        if self._reserved < (batch / 2 if self._expected else REQUEST_TOKENS):
            self._ahead = self._start(self._ask, max(REQUEST_TOKENS, min(self._expected, batch)))
        elif time.monotonic() - self._limit.read_at > LOOK_SECONDS / 2:
            self._ahead = self._start(self._ask, 0)

    def _ask(self, tokens: int) -> None:
        """Reserve tokens, or only look for a pause if they are 0; note how long to wait."""
        limit = (self._limit.recall() if tokens else None) or self._limit.read()
        wait_seconds = self._allowance.pause_seconds(limit) or (self._reserve(tokens, limit) if tokens else 0.0)
        if wait_seconds:
            with self._lock:
                self._wait_until = time.monotonic() + wait_seconds

    def _reserve(self, tokens: int, limit: GlobalConcurrencyLimitResponse) -> float:
        """Reserve tokens, as many as the limit allows, and return 0; or return the seconds to wait."""
        if limit.limit < REQUEST_TOKENS:
            raise RefusedError(
                f"the limit {LIMIT} on Prefect's server has {limit.limit} slots, a request takes {REQUEST_TOKENS}: "
                f"give it {LEAST_TOKENS:,} to {TOKENS:,}, or deactivate it"
            )
        tokens = max(REQUEST_TOKENS, min(tokens, limit.limit // 2))
        missing = self._follow_esi(limit, tokens) + tokens - limit.limit
        if missing > 0:
            return min(max(MIN_WAIT_SECONDS, missing / limit.slot_decay_per_second), MAX_WAIT_SECONDS)
        if wait_seconds := self._limit.reserve(tokens):
            self._note_refusal()
            return wait_seconds
        self._refusals.clear()
        with self._lock:
            self._reserved += tokens
            self._expected = max(0, self._expected - tokens)
        return 0.0

    def _note_refusal(self) -> None:
        """Stop counting tokens after many refusals in a row."""
        self._refusals.append(time.monotonic())
        seconds = self._refusals[-1] - self._refusals[0]
        if len(self._refusals) >= PATIENCE and seconds >= PATIENCE_SECONDS:
            self._logger.warning(GIVEN_UP, LIMIT, len(self._refusals), seconds)
            self._counts = False

    def _follow_esi(self, limit: GlobalConcurrencyLimitResponse, tokens: int) -> int:
        """Return the slots that are taken, after setting them to ESI's count where needed."""
        esi = self._allowance
        if time.monotonic() - esi.read_at > KNOWN_SECONDS:
            return limit.active_slots
        if limit.limit > esi.of >= FEWEST_TOKENS:
            self._limit.update(limit=esi.of, slot_decay_per_second=esi.of / max(1.0, esi.window_seconds))
            limit.limit = esi.of
        is_mostly_others = limit.limit < 2 * esi.margin  # other programs' tokens, of those that ESI counts
        is_full = limit.active_slots + tokens > limit.limit
        if is_mostly_others or not (is_full or esi.is_scarce):
            return limit.active_slots
        taken = max(0, limit.limit - (esi.left - max(0, esi.of - limit.limit)) + esi.margin)
        if abs(taken - limit.active_slots) >= esi.batch:
            self._limit.update(active_slots=taken)
        return taken
