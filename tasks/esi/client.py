"""The HTTP client for ESI, EVE Online's public API.

Each answer is judged once, by `STATUSES` and its headers; what happens next is in the error's class:

    EsiError                 ESI, or the way to it, gave no usable answer
    ├── TransientError       may pass: worth asking again
    │   └── RateLimitedError 420 or 429: first, every request of this process holds still
    └── RefusedError         will not pass by itself, or not in time
        ├── DeniedError      an authorised request, refused twice
        └── NotFoundError    404
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from types import TracebackType
from typing import ClassVar, ParamSpec, Protocol, Self

import httpx

from tasks.esi.answers import (
    BODY_SECONDS,
    Answer,
    R,
    decode,
    raise_for_status,
    read_body,
    read_offer,
    read_page,
    time_of,
)
from tasks.esi.errors import DeniedError, RateLimitedError, RefusedError, TransientError
from tasks.esi.markets import name_market, orders_params, orders_path
from tasks.network import TIMEOUT, Waits, check_url, trusted

COMPATIBILITY_DATE = "2026-08-18"
DEFAULT_URL = "https://esi.evetech.net"
DEFAULT_USER_AGENT = "market-data/0.1.0 (set ESI_USER_AGENT to name your contact)"
RUN_SECONDS = 1200.0  # later than this a run asks nothing more; ESI's longest limit is 900 s
HEADS = 2  # that fail one after the other; then the run asks by GET

P = ParamSpec("P")


class Tokens(Protocol):
    """What requests for orders cost, where many processes share it."""

    def expect(self, requests: int) -> None:
        """Say how many requests will be made."""

    def spend(self) -> float:
        """Spend a request's tokens and return 0, or return the seconds to wait before asking again."""

    def note_answer(self, headers: httpx.Headers) -> None:
        """Note what an answer says of tokens."""

    def hold_all(self, seconds: float) -> None:
        """Make all who share them hold still."""


class Esi:
    """A pool of connections to ESI that never has more than `fetch_concurrency` requests in flight.

    Use it as a context manager.

    Args:
        url: of the API.
        user_agent: who asks.
        fetch_concurrency: requests in flight at once.
        tokens: are taken before orders are asked for, if their number is shared with others.
        auth: authorises each request, for what ESI does not show everybody.

    Raises:
        ValueError: `url` is no http(s) address, or plain http to another machine; `user_agent` fits in no header.
    """

    # By address, and shared by all clients of the process: ESI counts neither runs nor threads.
    _hold_until: ClassVar[dict[str, float]] = {}

    def __init__(
        self,
        url: str,
        user_agent: str,
        fetch_concurrency: int,
        tokens: Tokens | None = None,
        auth: httpx.Auth | None = None,
    ) -> None:
        self.url = check_url(url, "ESI_URL", DEFAULT_URL)
        if not (user_agent.isascii() and user_agent.isprintable()):
            raise ValueError(f"ESI_USER_AGENT is {user_agent!r}: give printable ASCII")
        self.fetch_concurrency = fetch_concurrency
        self.failures: Counter[str] = Counter()  # requests made again in a run that ends well, by their error
        self.failed_pages: set[int] = set()  # pages that gave an error at least once
        self.waits = Waits()
        self._deadline = time.monotonic() + RUN_SECONDS
        self._refused: RefusedError | None = None
        self._denied: dict[str, set[str]] = {}  # requests that were denied and have not gone well since, and how
        self._failed_heads = 0  # one after the other
        self._lock = threading.Lock()
        self._tokens = tokens
        self._threads = ThreadPoolExecutor(fetch_concurrency, thread_name_prefix="esi")
        self._http = httpx.Client(
            base_url=self.url,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": user_agent,
                "X-Compatibility-Date": COMPATIBILITY_DATE,
            },
            limits=httpx.Limits(max_connections=fetch_concurrency, max_keepalive_connections=fetch_concurrency),
            timeout=TIMEOUT,
            verify=trusted(),
            auth=auth,
        )

    @classmethod
    def from_environment(
        cls, fetch_concurrency: int, tokens: Tokens | None = None, auth: httpx.Auth | None = None
    ) -> Self:
        """Open the ESI that `ESI_URL` names, as `ESI_USER_AGENT`."""
        url = os.environ.get("ESI_URL") or DEFAULT_URL
        return cls(url, os.environ.get("ESI_USER_AGENT") or DEFAULT_USER_AGENT, fetch_concurrency, tokens, auth)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._http.close()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `function` on one of the `fetch_concurrency` threads; it may make one request at a time."""
        return self._threads.submit(function, *args, **kwargs)

    def head(self, region_id: int) -> Answer:
        """Return which snapshot of a region's orders is on offer, without its orders.

        Some proxies and edges have no HEAD. One that is refused gives way to GET of the first page, of which the
        headers alone are read; so do all others of this client once `HEADS` of them have failed in a row.

        Raises:
            TransientError: see the module.
            RefusedError: see the module.
        """
        path, what, params = orders_path(region_id), name_market(region_id), orders_params(region_id)
        if self._failed_heads < HEADS:
            try:
                answer = self._ask("HEAD", path, what, read_offer, params)
            except (RateLimitedError, DeniedError):
                raise
            except TransientError:
                self._failed_heads += 1
                raise
            except RefusedError:
                self._failed_heads = HEADS
            else:
                self._failed_heads = 0
                return answer
        return self._ask("GET", path, what, read_offer, params | {"page": "1"})

    def get(self, region_id: int, page: int) -> Answer:
        """Download one page (1 or more) of a region's orders.

        Raises:
            TransientError: see the module.
            RefusedError: see the module.
        """
        params = orders_params(region_id) | {"page": str(page)}
        what = f"page {page} of {name_market(region_id)}"
        return self._ask("GET", orders_path(region_id), what, read_page, params, page)

    def get_json(self, path: str, kind: type[R]) -> tuple[R, datetime]:
        """Download what an endpoint without pages says.

        Args:
            path: of the endpoint, such as `/status`.
            kind: what its JSON is decoded to, such as a msgspec.Struct of the fields that count.

        Returns:
            The decoded JSON, and the time of the answer by ESI's clock, UTC.

        Raises:
            TransientError: see the module.
            RefusedError: see the module; also a value that is missing or of the wrong type.
        """

        def read(response: httpx.Response, what: str, deadline: float) -> tuple[R, datetime]:
            return decode(read_body(response, deadline, what), kind, what), time_of(response)

        return self._ask("GET", path, path, read)

    def expect(self, pages: int) -> None:
        """Say how many pages will be asked for, so that their tokens are taken in few helpings."""
        if self._tokens:
            self._tokens.expect(pages)

    def give_up(self, error: RefusedError) -> None:
        """Make each further request fail with `error`: what one page was refused for, the others need not ask."""
        self._refused = error

    def _ask(
        self,
        method: str,
        path: str,
        what: str,
        read: Callable[[httpx.Response, str, float], R],
        params: dict[str, str] | None = None,
        page: int | None = None,
    ) -> R:
        self._hold_still(what)
        self._spend(what)
        try:
            with self._http.stream(method, path, params=params) as response:
                if self._tokens:
                    self._tokens.note_answer(response.headers)
                raise_for_status(response, what)
                answer = read(response, what, time.monotonic() + BODY_SECONDS)
        except RateLimitedError as error:
            self.count_failure(page, error.cause, error.hold_seconds)
            self._hold_all(error)
            raise
        except DeniedError as error:
            causes = self._denied.setdefault(what, set())
            if error.cause in causes:
                raise
            causes.add(error.cause)
            self.count_failure(page, error.cause)
            raise TransientError(f"{error.said}; asked once more", error.cause) from error
        except TransientError as error:
            self.count_failure(page, error.cause)
            raise
        except httpx.HTTPError as error:
            self.count_failure(page, type(error).__name__)
            raise TransientError(f"{what}: {type(error).__name__} from {self.url}: {error}") from error
        self._denied.pop(what, None)
        return answer

    def count_failure(self, page: int | None, cause: str, hold_seconds: float = 0.0) -> None:
        """Count a request that has to be made again; and after a 420 or 429 all requests hold still."""
        with self._lock:
            self.failures[cause] += 1
            if page is not None:
                self.failed_pages.add(page)
            until = time.monotonic() + hold_seconds
            self._hold_until[self.url] = max(until, self._hold_until.get(self.url, until))

    def _spend(self, what: str) -> None:
        """Spend a request's tokens, if they are shared with others; wait as long as there are none.

        Raises:
            RefusedError: the run would be over by then, or another page was refused meanwhile.
        """
        while self._tokens and (wait_seconds := self._tokens.spend()):
            if self._refused:
                raise self._refused
            if time.monotonic() + wait_seconds > self._deadline:
                raise RefusedError(
                    f"{what}: ESI's tokens are used up, and a run asks nothing after {RUN_SECONDS:.0f} s; nothing was "
                    "stored, the next run tries again"
                )
            self.waits.sleep(wait_seconds)

    def _hold_all(self, error: RateLimitedError) -> None:
        if self._tokens:
            try:
                self._tokens.hold_all(error.hold_seconds)
            except TransientError as failure:
                error.add_note(f"other workers were not told: {failure}")

    def _hold_still(self, what: str) -> None:
        while True:
            if self._refused:
                raise self._refused
            until, now = self._hold_until.get(self.url, 0.0), time.monotonic()
            if max(until, now) > self._deadline:
                left = f"ESI wants {until - now:.0f} s more without a request" if until > now else "time is up"
                raise RefusedError(
                    f"{what}: {left}, and a run asks nothing after {RUN_SECONDS:.0f} s; nothing was stored, the next "
                    "run tries again"
                )
            if until <= now:
                return
            self.waits.sleep(until - now)
