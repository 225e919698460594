"""The limit for ESI's tokens on Prefect's server: a global concurrency limit with slot decay.

Some servers report the slots that are taken now, others those at the last change. So before it reserves, a worker
subtracts what has decayed since it first saw that change: a refusal makes Prefect forget the decay.
"""

import contextvars
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from tasks.esi.errors import TransientError

LIMIT = "esi-market-order"
TOKENS, WINDOW_SECONDS = 12_000, 900.0
LEAST_TOKENS = 1_600  # twice the margin of the token bucket
MIN_WAIT_SECONDS = 0.2
RECENT_SECONDS = 0.5  # what was read is used again for so long, if there is room
MAX_RETRY_SECONDS = 60.0  # a longer `Retry-After` is cut to this

P = ParamSpec("P")


class SharedLimit:
    """One run's view of the limit on Prefect's server. Not thread-safe: use it on its own thread, by `start`.

    Without a server, or a limit on it, tokens are not counted.
    """

    def __init__(self) -> None:
        self._client: SyncPrefectClient | None = None
        self.counts = bool(PREFECT_API_URL.value())
        self._seen: tuple[object, ...] = ()  # the limit's last change …
        self._seen_at = 0.0  # … and when it was first seen, monotonic time
        self.read_at = 0.0  # monotonic time of the last read that succeeded …
        self._last: GlobalConcurrencyLimitResponse | None = None  # … and what it said
        self._context = contextvars.copy_context()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokens")

    def start(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> "Future[None]":
        """Run a function on the limit's own thread, in the context of the run.

        The future raises a TransientError if Prefect's server was unreachable: then Prefect retries the state.
        """

        def call() -> None:
            try:
                self._context.run(function, *args, **kwargs)
            except httpx.HTTPError as error:
                raise TransientError(
                    f"ESI's tokens, {LIMIT} on Prefect's server, could not be counted: {type(error).__name__}: {error}",
                    "Prefect's server",
                ) from error

        return self._thread.submit(call)

    def close(self) -> None:
        """Stop counting tokens after the calls that were started, without waiting for them."""
        self.start(self.stop)
        self._thread.shutdown(wait=False)

    def read(self) -> GlobalConcurrencyLimitResponse | None:
        """Return the limit with the slots that are taken now; None if there is none."""
        self._last = None
        if not self.counts:
            return None
        asked_at = time.monotonic()
        if not self._client:
            self._client = get_client(sync_client=True)
            self._client.__enter__()
        try:
            limit = self._client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            self.stop()
            return None
        self.read_at = asked_at
        if not limit.active or limit.slot_decay_per_second <= 0:
            return None
        seen = (limit.updated, limit.active_slots, limit.limit, limit.slot_decay_per_second)
        if seen != self._seen:
            self._seen, self._seen_at = seen, time.monotonic()
        seconds = max(0.0, asked_at - self._seen_at)  # a lower bound: from one response to the next request
        limit.active_slots = max(0, limit.active_slots - int(seconds * limit.slot_decay_per_second))
        self._last = limit
        return limit

    def recall(self) -> GlobalConcurrencyLimitResponse | None:
        """Return the limit as it was read, if that was just now and over half was free; otherwise None."""
        limit = self._last
        is_recent = time.monotonic() - self.read_at < RECENT_SECONDS
        return limit if limit and is_recent and 2 * limit.active_slots < limit.limit else None

    def reserve(self, tokens: int) -> float:
        """Take slots of a limit that was just read and return 0; if refused, return the seconds to wait."""
        if not self._client:  # it was deleted a moment ago
            return 0.0
        try:
            self._client.increment_concurrency_slots([LIMIT], tokens, "rate_limit").raise_for_status()
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.LOCKED:
                return retry_seconds(error.response)
            raise
        if self._last:
            self._last.active_slots += tokens
        return 0.0

    def update(self, **values: float) -> None:
        """Set fields of a limit that was just read."""
        self._last = None
        if self._client:  # otherwise it was deleted a moment ago
            try:
                self._client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate.model_validate(values))
            except ObjectNotFound:
                self.stop()

    def stop(self) -> None:
        """Stop counting tokens."""
        self.counts = False
        if self._client:
            self._client.__exit__(None, None, None)
            self._client = None


def retry_seconds(response: httpx.Response) -> float:
    """Return a refusal's `Retry-After` (s), within bounds; the minimum if it has none."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        seconds = math.nan
    return min(max(MIN_WAIT_SECONDS, seconds), MAX_RETRY_SECONDS) if math.isfinite(seconds) else MIN_WAIT_SECONDS


def create_limit() -> int:
    """Create the limit unless it exists, with `ESI_TOKENS` or all of ESI's tokens, and return how many it has."""
    given = os.environ.get("ESI_TOKENS", "").strip()
    if given and not (given.isascii() and given.isdigit() and LEAST_TOKENS <= int(given) <= TOKENS):
        raise ValueError(f"ESI_TOKENS is {given!r}: give {LEAST_TOKENS} to {TOKENS} tokens per 15 minutes")
    tokens = int(given or TOKENS)
    decay = tokens / WINDOW_SECONDS
    with get_client(sync_client=True) as client:
        try:
            present = client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):  # another run came first
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=LIMIT, limit=tokens, slot_decay_per_second=decay)
                )
            return tokens
        if not given:
            return present.limit
        if present.limit != tokens:
            client.update_global_concurrency_limit(
                LIMIT, GlobalConcurrencyLimitUpdate(limit=tokens, slot_decay_per_second=decay)
            )
    return tokens
