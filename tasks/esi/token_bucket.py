"""ESI's tokens, which all workers share: a global concurrency limit on Prefect's server, with slot decay.

ESI gives an address 12,000 tokens in any 15 minutes and answers 429 beyond; a page costs 2. Workers reserve what they
need in batches. The limit frees slots evenly, ESI each token 15 minutes after its use. So once few are left, the limit
is set to what ESI's last answer says, less a margin that covers what others may have reserved. If ESI gives fewer
tokens than the limit has, the limit becomes ESI's. The slots of a killed worker come free like all others.

Some servers report the slots that are taken now, others those at the last change. So a worker itself subtracts what
has decayed since it first saw that change, before it reserves: a refusal makes Prefect forget the decay.
"""

import contextvars
import math
import os
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx
import msgspec
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_logger, get_run_logger
from prefect.settings import PREFECT_API_URL

from tasks.esi.errors import RefusedError, TransientError

LIMIT = "esi-market-order"
TOKENS, WINDOW_SECONDS = 12_000, 900.0
FEWEST_TOKENS = 100  # a smaller number of ESI's is not believed: it would stop all workers for good
LEAST_TOKENS = 1_600  # twice the margin
REQUEST_TOKENS = 2  # what a page costs, or a HEAD
LOOK_SECONDS = 1.0  # between two looks at whether all hold still
MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.2, 5.0  # until the limit is looked at again
MAX_RETRY_SECONDS = 60.0  # a longer `Retry-After` is not waited for
# A limit that has refused so often in a row, though slots were free, and for so long, is not asked any more.
PATIENCE, PATIENCE_SECONDS = 5, 120.0
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
        """Whether so few are left, a fifth, that batches are small, and the limit follows ESI's answers."""
        return self.left < self.of / 5

    @property
    def margin(self) -> int:
        """How many are left alone: 800 of 12,000."""
        return self.of // 15

    @property
    def batch(self) -> int:
        """How many to take at once, at most: 120 of 12,000, a chunk's; 20 when they are scarce."""
        return self.of // (600 if self.is_scarce else 100)


class SharedLimit:
    """The limit on Prefect's server, as one run sees it. Use it from one thread at a time.

    Without a server, or without the limit on it, tokens are not counted.
    """

    def __init__(self) -> None:
        self._client: SyncPrefectClient | None = None
        self._counts = bool(PREFECT_API_URL.value())
        self._seen: tuple[object, ...] = ()  # the limit's last change …
        self._seen_at = 0.0  # … and when it was seen first, monotonic time
        self.read_at = 0.0  # monotonic time of the last read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self._first: Future[GlobalConcurrencyLimitResponse | None] | None = self._thread.submit(
            contextvars.copy_context().run, self._read
        )

    def read(self) -> GlobalConcurrencyLimitResponse | None:
        """Return the limit as it stands, with the slots that are taken now; None if there is none.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        first, self._first = self._first, None
        if first:
            wait([first])
        return self._read()

    def read_early(self) -> GlobalConcurrencyLimitResponse | None:
        """Do what `read` does, at the first call with an answer that was requested when the run began.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        first, self._first = self._first, None
        return first.result() if first else self._read()

    def _read(self) -> GlobalConcurrencyLimitResponse | None:
        if not self._counts:
            return None
        self.read_at = time.monotonic()
        if not self._client:
            self._client = get_client(sync_client=True)
            self._client.__enter__()
        try:
            limit = self._client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            self._disconnect()
            return None
        except (PrefectHTTPStatusError, httpx.HTTPError) as error:
            raise unreachable(error) from error
        if not limit.active or limit.slot_decay_per_second <= 0:
            return None
        seen = (limit.updated, limit.active_slots, limit.limit, limit.slot_decay_per_second)
        if seen != self._seen:
            self._seen, self._seen_at = seen, time.monotonic()
        seconds = max(0.0, self.read_at - self._seen_at)  # at least so long: from an answer to a question
        limit.active_slots = max(0, limit.active_slots - int(seconds * limit.slot_decay_per_second))
        return limit

    def reserve(self, tokens: int) -> float:
        """Take slots of a limit that has just been read and return 0; if it refuses, return the seconds to wait.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        if not self._client:  # it was deleted a moment ago
            return 0.0
        try:
            self._client.increment_concurrency_slots([LIMIT], tokens, "rate_limit").raise_for_status()
        except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
            if error.response.status_code != httpx.codes.LOCKED:
                raise unreachable(error) from error
            return retry_seconds(error.response)
        except httpx.TransportError as error:
            raise unreachable(error) from error
        return 0.0

    def update(self, **values: float) -> None:
        """Set fields of a limit that has just been read.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        if not self._client:  # it was deleted a moment ago
            return
        try:
            self._client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate.model_validate(values))
        except ObjectNotFound:
            self.stop()
        except (PrefectHTTPStatusError, httpx.HTTPError) as error:
            raise unreachable(error) from error

    def stop(self) -> None:
        """Do without the limit from now on."""
        self._thread.shutdown()
        self._disconnect()

    def _disconnect(self) -> None:
        self._counts = False
        if self._client:
            self._client.__exit__(None, None, None)
            self._client = None


class TokenBucket:
    """ESI's tokens, for one run. Use it as a context manager; it may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limit = SharedLimit()
        self._reserved = 0  # tokens taken and not yet spent
        self._expected = 0  # tokens that will be needed, as far as is known
        self._allowance = Allowance()
        self._wait_until = 0.0  # monotonic time
        self._refusals = 0  # in a row …
        self._refused_since = 0.0  # … and when the first was, monotonic time
        self._logger = get_run_logger() if FlowRunContext.get() else get_logger(__name__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._limit.stop()

    def expect(self, requests: int) -> None:
        """Announce how many requests will be made, so that their tokens are reserved in few batches."""
        with self._lock:
            self._expected += requests * REQUEST_TOKENS

    def spend(self) -> float:
        """Spend a request's tokens and return 0, or return the seconds to wait before trying again.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        with self._lock:
            now = time.monotonic()
            if self._wait_until > now:
                return self._wait_until - now
            wait_seconds = 0.0
            if self._reserved < REQUEST_TOKENS:
                wait_seconds = self._reserve(max(REQUEST_TOKENS, min(self._expected, self._allowance.batch)))
            elif now - self._limit.read_at > LOOK_SECONDS and (limit := self._limit.read()):
                wait_seconds = self._pause_seconds(limit)
            if wait_seconds:
                self._wait_until = time.monotonic() + wait_seconds
            else:
                self._reserved -= REQUEST_TOKENS
            return wait_seconds

    def note_answer(self, headers: httpx.Headers) -> None:
        """Note what an answer of ESI's says: what it has cost, and how many tokens are left, of how many."""
        used, left, of = (headers.get(f"X-Ratelimit-{name}", "") for name in ("Used", "Remaining", "Limit"))
        with self._lock:
            if re.fullmatch(r"[0-5]", used):  # a request costs 5 at most; a sum of many would be no cost
                self._reserved += REQUEST_TOKENS - int(used)
            rate = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,4})([smh])", of)
            if re.fullmatch(r"[0-9]{1,9}", left) and rate:
                window_seconds = int(rate[2]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[rate[3]]
                self._allowance = Allowance(int(left), int(rate[1]), window_seconds, time.monotonic())

    def pause_all(self, seconds: float) -> None:
        """Make all runs pause: until the time is over, `WINDOW_SECONDS` at most, more slots are taken than can be.

        Raises:
            TransientError: Prefect's server could not be asked.
        """
        seconds = min(seconds, WINDOW_SECONDS)
        with self._lock:
            limit = self._limit.read()
            if limit and self._pause_seconds(limit) < seconds:
                full = limit.limit + self._margin(limit)
                self._limit.update(active_slots=round(full + seconds * limit.slot_decay_per_second))

    def _reserve(self, tokens: int) -> float:
        """Reserve so many tokens, or what the limit can give at once, and return 0; or return the seconds to wait.

        Raises:
            RefusedError: the limit is too small for a single request.
            TransientError: Prefect's server could not be asked.
        """
        if limit := self._limit.read_early():
            if limit.limit < REQUEST_TOKENS:
                raise RefusedError(
                    f"the limit {LIMIT} on Prefect's server has {limit.limit} slots, a request takes {REQUEST_TOKENS}: "
                    f"give it {LEAST_TOKENS:,} to {TOKENS:,}, or switch it off"
                )
            tokens = max(REQUEST_TOKENS, min(tokens, limit.limit // 2))
            if pause_seconds := self._pause_seconds(limit):
                return pause_seconds
            missing = self._follow_esi(limit, tokens) + tokens - limit.limit
            if missing > 0:
                return min(max(MIN_WAIT_SECONDS, missing / limit.slot_decay_per_second), MAX_WAIT_SECONDS)
            wait_seconds = self._limit.reserve(tokens)
            if wait_seconds and self._is_patient():
                return wait_seconds
            if not wait_seconds:
                self._refusals = 0
        self._reserved += tokens
        self._expected = max(0, self._expected - tokens)
        return 0.0

    def _is_patient(self) -> bool:
        """Return whether to wait after a refusal, because another run came first; if not, stop counting."""
        now = time.monotonic()
        self._refused_since = self._refused_since if self._refusals else now
        self._refusals += 1
        if self._refusals < PATIENCE or now - self._refused_since < PATIENCE_SECONDS:
            return True
        self._logger.warning(
            "the limit %s has refused %d times in %.0f s though slots were free: this run no longer counts ESI's "
            "tokens; delete the limit, and create it again with python -m deployments.automations",
            LIMIT,
            self._refusals,
            now - self._refused_since,
        )
        self._limit.stop()
        return False

    def _margin(self, limit: GlobalConcurrencyLimitResponse) -> int:
        """Return how many slots are left alone; half of a limit that somebody made small."""
        return min(self._allowance.margin, limit.limit // 2)

    def _pause_seconds(self, limit: GlobalConcurrencyLimitResponse) -> float:
        return max(0.0, (limit.active_slots - limit.limit - self._margin(limit)) / limit.slot_decay_per_second)

    def _follow_esi(self, limit: GlobalConcurrencyLimitResponse, tokens: int) -> int:
        """Return the slots that are taken, after setting them to what ESI says, where that matters."""
        esi = self._allowance
        if not esi.is_known:
            return limit.active_slots
        if limit.limit > esi.of >= FEWEST_TOKENS:
            self._limit.update(limit=esi.of, slot_decay_per_second=esi.of / max(1.0, esi.window_seconds))
            limit.limit = esi.of
        if limit.limit < 2 * esi.margin:  # what ESI says is mostly about others
            return limit.active_slots
        is_full = limit.active_slots + tokens > limit.limit
        if not is_full and not esi.is_scarce:
            return limit.active_slots
        taken = max(0, limit.limit - (esi.left - max(0, esi.of - limit.limit)) + esi.margin)
        if abs(taken - limit.active_slots) >= esi.batch:
            self._limit.update(active_slots=taken)
        return taken


def retry_seconds(response: httpx.Response) -> float:
    """Return how long a refusal says to wait before asking again, within bounds; a moment if it does not say."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        seconds = math.nan
    return min(max(MIN_WAIT_SECONDS, seconds), MAX_RETRY_SECONDS) if math.isfinite(seconds) else MIN_WAIT_SECONDS


def unreachable(error: Exception) -> TransientError:
    """Return the error that has a state tried again."""
    told = f"{type(error).__name__}: {error}"
    return TransientError(
        f"ESI's tokens, {LIMIT} on Prefect's server, could not be counted: {told}", "Prefect's server"
    )


def create_limit() -> int:
    """Create the limit unless it is there, as large as ESI's own; of as many tokens as `ESI_TOKENS` says, if it does.

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
