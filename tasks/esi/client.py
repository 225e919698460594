"""The HTTP client for ESI, EVE Online's public API, and for other APIs.

Each response is judged once, by its status and headers. The error's class says what happens next:

    EsiError                 no usable response from the API
    ├── TransientError       may pass: worth a retry
    │   └── RateLimitedError 420, 429 or overload: all requests of this process to the API pause first
    └── RefusedError         will not pass by itself, or not soon enough
        ├── DeniedError      an authorised request, refused twice
        └── NotFoundError    404
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Self, TypeAlias

import httpx
import msgspec

from tasks.esi.answers import Answer, raise_for_status, read_headers, read_page, time_of
from tasks.esi.body import R, decode, read_body
from tasks.esi.endpoint import Endpoint
from tasks.esi.errors import DeniedError, NotFoundError, RateLimitedError, RefusedError, TransientError
from tasks.esi.pause import UNLIMITED, Limit, find_pause
from tasks.network import TIMEOUT, Waits, check_url, fits_header, trusted

ESI_HEADERS = {"X-Compatibility-Date": "2026-08-18"}
DEFAULT_URL = "https://esi.evetech.net"
DEFAULT_USER_AGENT = "market-data/0.1.0 (set ESI_USER_AGENT to name your contact)"
HEADS = 2  # failures in a row before a run sends GET instead
RUN_SECONDS = 1200.0  # for all requests of a run; ESI's longest limit is 900 s

Reader: TypeAlias = Callable[[httpx.Response, Endpoint], R]


class Pool:
    """Connections to an API, and the threads that use them, for one run or several.

    Raises:
        ValueError: `url` is not an http(s) URL, or plain http to another machine; `ESI_USER_AGENT` does not fit a
            header.
    """

    def __init__(
        self,
        url: str,
        fetch_concurrency: int,  # requests in flight at once, never exceeded
        limit: Limit = UNLIMITED,  # on requests, such as ESI's tokens
        auth: httpx.Auth | None = None,  # for endpoints that are not public
        headers: Mapping[str, str] = ESI_HEADERS,  # of each request
    ) -> None:
        self.url = check_url(url, "ESI_URL", DEFAULT_URL)
        user_agent = os.environ.get("ESI_USER_AGENT") or DEFAULT_USER_AGENT  # names the operator to the API
        if not fits_header(user_agent):
            raise ValueError(f"ESI_USER_AGENT is {user_agent!r}: give printable ASCII")
        self.fetch_concurrency = fetch_concurrency
        self.pause = find_pause(self.url)
        self.limit = limit
        self.threads = ThreadPoolExecutor(fetch_concurrency, thread_name_prefix="esi")
        sent = httpx.Headers({"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": user_agent})
        sent.update(headers)
        self._http = httpx.Client(
            base_url=self.url,
            headers=sent,
            limits=httpx.Limits(max_connections=fetch_concurrency, max_keepalive_connections=fetch_concurrency),
            timeout=TIMEOUT,
            verify=trusted(),
            auth=auth,
        )

    def close(self) -> None:
        """Cancel queued requests, wait for those in flight, and close the connections."""
        self.threads.shutdown(cancel_futures=True)
        self._http.close()

    def send(self, method: str, endpoint: Endpoint, read: Reader[R]) -> R:
        """Send a request, and return what `read` makes of the answer or raise an EsiError; a 420 or 429 pauses all."""
        try:
            with self._http.stream(method, endpoint.path, params=endpoint.params) as response:
                self.limit.note_answer(response.headers)
                raise_for_status(response, endpoint)
                return read(response, endpoint)
        except RateLimitedError as error:
            self.pause.extend(error.pause_seconds)
            try:
                self.limit.pause_all(error.pause_seconds)
            except TransientError as failure:
                error.add_note(f"other workers were not paused: {failure}")
            raise
        except httpx.HTTPError as error:
            cause = type(error).__name__
            raise TransientError(f"{endpoint.name}: {cause} from {self.url}: {error}", cause) from error


class Esi:
    """One run's client for ESI or another API, which counts failures and waits. Use it as a context manager."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.url = pool.url
        self.fetch_concurrency = pool.fetch_concurrency
        self.expect = pool.limit.expect  # announces requests
        self.submit = pool.threads.submit  # calls a function, which may make one request at a time, on a thread
        self.failures: Counter[str] = Counter()  # failed requests that may be retried, by cause
        self.failed_pages: set[int] = set()  # pages that failed at least once
        self.waits = Waits()
        self._refused: RefusedError | None = None  # fails all further requests
        self._denied: dict[str, set[str]] = {}  # causes by request, until it succeeds
        self._failed_heads = 0  # in a row
        self._deadline = time.monotonic() + RUN_SECONDS
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls, fetch_concurrency: int, limit: Limit = UNLIMITED, auth: httpx.Auth | None = None) -> Self:
        """Open a client for `ESI_URL`."""
        return cls(Pool(os.environ.get("ESI_URL") or DEFAULT_URL, fetch_concurrency, limit, auth))

    def share(self) -> "Esi":
        """Return a client for another run: the same connections, its own counts."""
        return Esi(self._pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def head(self, endpoint: Endpoint) -> Answer:
        """Return the headers for an endpoint's latest snapshot, without its items; see the module for the errors.

        After a refusal, or `HEADS` failures in a row, send GET for the first page instead.
        """
        offer = msgspec.structs.replace(endpoint, needs_count=True)
        if self._failed_heads < HEADS:
            try:
                answer = self._request("HEAD", offer, read_headers)
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
        first = endpoint.page(endpoint.first_page).params
        try:
            return self._request("GET", msgspec.structs.replace(offer, params=first), read_headers)
        except NotFoundError as error:
            raise RefusedError(f"{error}; {endpoint.hint}") from error

    def get(self, endpoint: Endpoint, page: int) -> Answer:
        """Download one page, numbered as the API does; see the module for the errors."""
        return self._request("GET", endpoint.page(page), read_page, page)

    def get_json(self, path: str, kind: type[R]) -> tuple[R, datetime]:
        """Return the response of an endpoint without pages, such as `/status`, and its time by ESI's clock, UTC.

        The JSON is decoded to `kind`, such as a msgspec.Struct of the fields to keep; if it does not fit, that is a
        RefusedError. See the module for the other errors.
        """

        def read(response: httpx.Response, endpoint: Endpoint) -> tuple[R, datetime]:
            return decode(read_body(response, endpoint.name), kind, endpoint.name), time_of(response)

        return self._request("GET", Endpoint(name=path, path=path), read)

    def give_up(self, error: RefusedError) -> None:
        """Fail this run's further requests with `error`: once one page is refused, the rest are useless."""
        self._refused = error

    def count_failure(self, page: int | None, cause: str) -> None:
        """Count a failed request that may be retried."""
        with self._lock:
            self.failures[cause] += 1
            if page is not None:
                self.failed_pages.add(page)

    def _request(self, method: str, endpoint: Endpoint, read: Reader[R], page: int | None = None) -> R:
        self._wait(endpoint)
        try:
            answer = self._pool.send(method, endpoint, read)
        except DeniedError as error:
            causes = self._denied.setdefault(endpoint.name, set())
            if error.cause in causes:
                raise
            causes.add(error.cause)
            self.count_failure(page, error.cause)
            raise TransientError(f"{error.denial}; retrying once", error.cause) from error
        except TransientError as error:
            self.count_failure(page, error.cause)
            raise
        self._denied.pop(endpoint.name, None)
        return answer

    def _wait(self, endpoint: Endpoint) -> None:
        """Wait until a request may be sent: not in a pause, not over the limit, not too late, not after a refusal."""
        while True:
            # The pause first: a token must be spent when its request is sent, not before the pause.
            pause_seconds = self._pool.pause.seconds
            seconds = pause_seconds or self._pool.limit.spend()
            if self._refused:
                raise self._refused
            if time.monotonic() + seconds > self._deadline:
                why = f"{endpoint.api}'s tokens are used up" if seconds else "time is up"
                if pause_seconds:
                    why = f"{endpoint.api} requires a pause of {pause_seconds:.0f} s more"
                raise RefusedError(
                    f"{endpoint.name}: {why}, and a run sends no requests after {RUN_SECONDS:.0f} s; nothing was "
                    "stored, the next run tries again"
                )
            if not seconds:
                return
            self.waits.sleep(seconds)
