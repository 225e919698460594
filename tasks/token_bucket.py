"""ESI's tokens, which all workers share: a global concurrency limit of Prefect's server, with slot decay.

ESI gives an address 12,000 tokens in any 15 minutes, and 429 to who asks for more; a page costs 2. Workers take what
they need from the limit in helpings. It frees slots evenly, ESI each token 15 minutes after its use: once few are left
the limit is set to what ESI's last answer says, less `MARGIN_TOKENS`, which is more than others can have in hand.
A killed worker's slots come free like all others.
"""

import os
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from tasks.esi import TransientError

LIMIT = "esi-market-order"
TOKENS, WINDOW_SECONDS = 12_000, 900.0
MARGIN_TOKENS = 800
SCARCE_TOKENS = 2_400  # fewer are left: helpings are small, and the limit follows ESI's answers
HELPING_TOKENS, SCARCE_HELPING_TOKENS = 120, 20
LOOK_SECONDS = 1.0  # between two looks at whether all hold still
MAX_WAIT_SECONDS = 5.0  # until the limit is looked at again
KNOWN_SECONDS = 5.0  # for so long ESI's answer says how many are left


class TokenBucket:
    """The shared limit, for one run. Use it as a context manager; it may be used from several threads.

    Without a server, or without the limit on it, tokens are not counted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: tuple[float, int, int] | None = None  # when ESI said it, tokens left, of how many
        self._looked = 0.0
        self._client: SyncPrefectClient | None = None
        self._counts = bool(PREFECT_API_URL.value())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    @property
    def helping_tokens(self) -> int:
        """How many tokens to take at once, at most."""
        return SCARCE_HELPING_TOKENS if self._left and self._left[1] < SCARCE_TOKENS else HELPING_TOKENS

    def note_left(self, left: int, of: int) -> None:
        """Takes to heart what an answer of ESI's says: how many tokens are left, of how many."""
        self._left = (time.monotonic(), left, of)

    def take(self, tokens: int) -> float:
        """Takes tokens and gives 0, or takes none and gives the seconds to wait before asking again.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        with self._lock:
            limit = self._read()
            if not limit or not self._client:
                return 0.0
            if held_seconds := self._held_seconds(limit):
                return held_seconds
            active = self._follow_esi(limit, tokens)
            missing = active + tokens - limit.limit
            if missing > 0:  # not asked for: a refusal makes Prefect forget what has decayed since the last change
                return min(max(0.2, missing / limit.slot_decay_per_second), MAX_WAIT_SECONDS)
            try:
                self._client.increment_concurrency_slots([LIMIT], tokens, "rate_limit").raise_for_status()
            except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
                if error.response.status_code == httpx.codes.LOCKED:  # another run came first
                    return 0.2
                raise unreachable(error) from error
            except httpx.TransportError as error:
                raise unreachable(error) from error
            return 0.0

    def hold_all(self, seconds: float) -> None:
        """Makes all runs hold still: until the time is over there are more slots taken than can be.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        with self._lock:
            limit = self._read()
            if limit and self._held_seconds(limit) < seconds:
                self._set(round(limit.limit + MARGIN_TOKENS + seconds * limit.slot_decay_per_second))

    def held_seconds(self) -> float:
        """Gives how long all runs hold still, looking once a second at most.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        with self._lock:
            if time.monotonic() - self._looked < LOOK_SECONDS:
                return 0.0
            limit = self._read()
            return self._held_seconds(limit) if limit else 0.0

    def _held_seconds(self, limit: GlobalConcurrencyLimitResponse) -> float:
        return max(0.0, (limit.active_slots - limit.limit - MARGIN_TOKENS) / limit.slot_decay_per_second)

    def _follow_esi(self, limit: GlobalConcurrencyLimitResponse, tokens: int) -> int:
        """Gives the slots that are taken, once they are as many as ESI says, where that matters."""
        is_full = limit.active_slots + tokens > limit.limit
        if not self._left or time.monotonic() - self._left[0] > KNOWN_SECONDS:
            return limit.active_slots
        _when, left, of = self._left
        taken = max(0, limit.limit - (left - max(0, of - limit.limit)) + MARGIN_TOKENS)
        if not is_full and left >= SCARCE_TOKENS:
            return limit.active_slots
        if abs(taken - limit.active_slots) >= SCARCE_HELPING_TOKENS:
            self._set(taken)
        return taken

    def _read(self) -> GlobalConcurrencyLimitResponse | None:
        """Gives the limit as it stands, None if there is none."""
        if not self._counts:
            return None
        self._looked = time.monotonic()
        if not self._client:
            self._client = get_client(sync_client=True)
            self._client.__enter__()
        try:
            limit = self._client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            self._counts = False  # it will not come while this run lasts
            self._close()
            return None
        except (PrefectHTTPStatusError, httpx.HTTPError) as error:
            raise unreachable(error) from error
        return limit if limit.active and limit.slot_decay_per_second > 0 else None

    def _close(self) -> None:
        if self._client:
            self._client.__exit__(None, None, None)
            self._client = None

    def _set(self, active_slots: int) -> None:
        if self._client:
            try:
                self._client.update_global_concurrency_limit(
                    LIMIT, GlobalConcurrencyLimitUpdate(active_slots=active_slots)
                )
            except (PrefectHTTPStatusError, httpx.HTTPError) as error:
                raise unreachable(error) from error


def unreachable(error: Exception) -> TransientError:
    """Gives the error that has a state tried again."""
    told = f"{type(error).__name__}: {error}"
    return TransientError(
        f"ESI's tokens, {LIMIT} on Prefect's server, could not be counted: {told}", "Prefect's server"
    )


def create_limit() -> None:
    """Creates the limit unless it is there: as ESI's own, or of the tokens that `ESI_TOKENS` says.

    Raises:
        ValueError: `ESI_TOKENS` is no number of tokens.
    """
    given = os.environ.get("ESI_TOKENS") or str(TOKENS)
    if not (given.isascii() and given.isdigit() and 2 * MARGIN_TOKENS <= int(given) <= 1_000_000):
        raise ValueError(f"ESI_TOKENS is {given!r}: give {2 * MARGIN_TOKENS} to 1000000 tokens in 15 minutes")
    wanted = GlobalConcurrencyLimitCreate(
        name=LIMIT, limit=int(given), slot_decay_per_second=int(given) / WINDOW_SECONDS
    )
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):  # another run came first
                client.create_global_concurrency_limit(wanted)
