"""The limit for ESI's tokens on Prefect's server: a global concurrency limit with slot decay.

Some servers report the slots that are taken now, others those at the last change. So before it reserves, a worker
subtracts what has decayed since it first saw that change: a refusal makes Prefect forget the decay.
"""

import os
import re
import time
from contextlib import ExitStack, suppress
from functools import cached_property

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectAlreadyExists

LIMIT = "esi-market-order"
TOKENS, WINDOW_SECONDS = 12_000, 900.0
LEAST_TOKENS = 1_600  # twice the margin of the token bucket
RECENT_SECONDS = 0.5  # what was read is used again for so long, if there is room
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.2, 60.0  # bounds of a refusal's `Retry-After`


class InactiveError(Exception):
    """The limit is deactivated, or its slots never decay."""


class SharedLimit(ExitStack):
    """One run's view of the limit on Prefect's server. Not thread-safe.

    Each call raises Prefect's ObjectNotFound if there is no limit, and an httpx.HTTPError if the server is unreachable.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[object, ...] = ()  # the limit's last change …
        self._seen_at = 0.0  # … and when it was first seen, monotonic time
        self.read_at = 0.0  # monotonic time of the last read that succeeded …
        self._last: GlobalConcurrencyLimitResponse | None = None  # … and what it said

    @cached_property
    def _client(self) -> SyncPrefectClient:
        return self.enter_context(get_client(sync_client=True))

    def read(self) -> GlobalConcurrencyLimitResponse:
        """Return the limit with the slots that are taken now; raise an InactiveError if it is not in use."""
        asked_at = time.monotonic()
        limit = self._client.read_global_concurrency_limit_by_name(LIMIT)
        if not limit.active or limit.slot_decay_per_second <= 0:
            raise InactiveError
        self.read_at = asked_at
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
        self._client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate.model_validate(values))


def retry_seconds(response: httpx.Response) -> float:
    """Return a refusal's `Retry-After` (s), within bounds; the minimum if it has none."""
    given = response.headers.get("Retry-After", "")
    seconds = float(given) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", given) else 0.0
    return min(max(MIN_RETRY_SECONDS, seconds), MAX_RETRY_SECONDS)


def create_limit() -> int:
    """Create the limit unless it exists, with `ESI_TOKENS` or all of ESI's tokens, and return how many it has."""
    given = os.environ.get("ESI_TOKENS", "").strip()
    if given and not (given.isascii() and given.isdigit() and LEAST_TOKENS <= int(given) <= TOKENS):
        raise ValueError(f"ESI_TOKENS is {given!r}: give {LEAST_TOKENS} to {TOKENS} tokens per 15 minutes")
    tokens = int(given or TOKENS)
    decay = tokens / WINDOW_SECONDS
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=LIMIT, limit=tokens, slot_decay_per_second=decay)
            )
        if given:
            client.upsert_global_concurrency_limit_by_name(LIMIT, tokens, decay)
        return client.read_global_concurrency_limit_by_name(LIMIT).limit
