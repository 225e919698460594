"""ESI's tokens, which all workers share: a global concurrency limit of Prefect's server, with slot decay.

ESI gives an address 12,000 tokens in any 15 minutes, and 429 to who asks for more; a page costs 2. Workers take what
they need from the limit in helpings. It frees slots evenly, ESI each token 15 minutes after its use: once few are left
the limit is set to what ESI's last answer says, less a margin, which is more than others can have in hand. Should ESI
ever give fewer tokens than the limit has, the limit becomes ESI's. A killed worker's slots come free like all others.
"""

import os
import re
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx
import msgspec
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from tasks.esi import TransientError

LIMIT = "esi-market-order"
TOKENS, WINDOW_SECONDS = 12_000, 900.0
LEAST_TOKENS = 1_600  # twice the margin
REQUEST_TOKENS = 2  # what a page costs, or a HEAD
LOOK_SECONDS = 1.0  # between two looks at whether all hold still
MAX_WAIT_SECONDS = 5.0  # until the limit is looked at again
KNOWN_SECONDS = 5.0  # for so long ESI's answer says how many are left


class Allowance(msgspec.Struct, frozen=True):
    """What ESI's last answer says of tokens; until there is one, what is known of ESI."""

    left: int = TOKENS
    of: int = TOKENS
    window_seconds: float = WINDOW_SECONDS
    said: float = float("-inf")  # monotonic time

    @property
    def is_known(self) -> bool:
        """Whether it was said just now."""
        return time.monotonic() - self.said < KNOWN_SECONDS

    @property
    def is_scarce(self) -> bool:
        """Whether so few are left, a fifth, that helpings are small, and the limit follows ESI's answers."""
        return self.left < self.of / 5

    @property
    def margin(self) -> int:
        """How many are left alone: 800 of 12,000."""
        return self.of // 15

    @property
    def helping(self) -> int:
        """How many to take at once, at most: 120 of 12,000, a chunk's; 20 when they are scarce."""
        return self.of // (600 if self.is_scarce else 100)


class TokenBucket:
    """The shared limit, for one run. Use it as a context manager; it may be used from several threads.

    Without a server, or without the limit on it, tokens are not counted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._purse = 0  # tokens taken and not yet spent
        self._expected = 0  # tokens that will be needed, as far as is known
        self._allowance = Allowance()
        self._looked = self._wait_until = 0.0  # monotonic times
        self._client: SyncPrefectClient | None = None
        self._counts = bool(PREFECT_API_URL.value())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def expect(self, requests: int) -> None:
        """Says how many requests will be made, so that their tokens are taken in few helpings."""
        with self._lock:
            self._expected += requests * REQUEST_TOKENS

    def spend(self) -> float:
        """Spends a request's tokens and gives 0, or gives the seconds to wait before asking again.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        with self._lock:
            now = time.monotonic()
            if self._wait_until > now:
                return self._wait_until - now
            wait_seconds = 0.0
            if self._purse < REQUEST_TOKENS:
                wait_seconds = self._take(max(REQUEST_TOKENS, min(self._expected, self._allowance.helping)))
            elif now - self._looked > LOOK_SECONDS and (limit := self._read()):
                wait_seconds = self._held_seconds(limit)
            if wait_seconds:
                self._wait_until = time.monotonic() + wait_seconds
            else:
                self._purse -= REQUEST_TOKENS
            return wait_seconds

    def note_answer(self, headers: httpx.Headers) -> None:
        """Notes what an answer of ESI's says: what it has cost, and how many tokens are left, of how many."""
        used, left, of = (headers.get(f"X-Ratelimit-{name}", "") for name in ("Used", "Remaining", "Limit"))
        with self._lock:
            if re.fullmatch(r"[0-5]", used):  # a request costs 5 at most; a sum of many would be no cost
                self._purse += REQUEST_TOKENS - int(used)
            rate = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,4})([smh])", of)
            if re.fullmatch(r"[0-9]{1,9}", left) and rate:
                window_seconds = int(rate[2]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[rate[3]]
                self._allowance = Allowance(int(left), int(rate[1]), window_seconds, time.monotonic())

    def hold_all(self, seconds: float) -> None:
        """Makes all runs hold still: until the time is over there are more slots taken than can be.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        with self._lock:
            limit = self._read()
            if limit and self._held_seconds(limit) < seconds:
                self._update(
                    active_slots=round(limit.limit + self._allowance.margin + seconds * limit.slot_decay_per_second)
                )

    def _take(self, tokens: int) -> float:
        """Takes a helping and gives 0, or gives the seconds to wait."""
        limit = self._read()
        if limit and self._client:
            if held_seconds := self._held_seconds(limit):
                return held_seconds
            missing = self._follow_esi(limit, tokens) + tokens - limit.limit
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
        self._purse += tokens
        self._expected = max(0, self._expected - tokens)
        return 0.0

    def _held_seconds(self, limit: GlobalConcurrencyLimitResponse) -> float:
        return max(0.0, (limit.active_slots - limit.limit - self._allowance.margin) / limit.slot_decay_per_second)

    def _follow_esi(self, limit: GlobalConcurrencyLimitResponse, tokens: int) -> int:
        """Gives the slots that are taken, once they are as many as ESI says, where that matters."""
        esi = self._allowance
        if not esi.is_known:
            return limit.active_slots
        if limit.limit > esi.of > 0:
            self._update(limit=esi.of, slot_decay_per_second=esi.of / max(1.0, esi.window_seconds))
            limit.limit = esi.of
        is_full = limit.active_slots + tokens > limit.limit
        if not is_full and not esi.is_scarce:
            return limit.active_slots
        taken = max(0, limit.limit - (esi.left - max(0, esi.of - limit.limit)) + esi.margin)
        if abs(taken - limit.active_slots) >= esi.helping:
            self._update(active_slots=taken)
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

    def _update(self, **values: float) -> None:
        if self._client:
            try:
                self._client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate.model_validate(values))
            except (PrefectHTTPStatusError, httpx.HTTPError) as error:
                raise unreachable(error) from error


def unreachable(error: Exception) -> TransientError:
    """Gives the error that has a state tried again."""
    told = f"{type(error).__name__}: {error}"
    return TransientError(
        f"ESI's tokens, {LIMIT} on Prefect's server, could not be counted: {told}", "Prefect's server"
    )


def create_limit() -> int:
    """Creates the limit unless it is there, as large as ESI's own; of as many tokens as `ESI_TOKENS` says, if it does.

    Returns:
        How many tokens it has in 15 minutes.

    Raises:
        ValueError: `ESI_TOKENS` is no number of tokens.
    """
    given = os.environ.get("ESI_TOKENS", "").strip()
    if given and not (given.isascii() and given.isdigit() and LEAST_TOKENS <= int(given) <= TOKENS):
        raise ValueError(f"ESI_TOKENS is {given!r}: give {LEAST_TOKENS} to {TOKENS} tokens in 15 minutes")
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
        if given and present.limit != tokens:
            client.update_global_concurrency_limit(
                LIMIT, GlobalConcurrencyLimitUpdate(limit=tokens, slot_decay_per_second=decay)
            )
        return tokens if given else present.limit
