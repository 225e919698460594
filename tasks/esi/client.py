"""The HTTP client for ESI, EVE Online's public API, and for other APIs.

Each response is judged once, by its status and headers. The error's class says what happens next:

    EsiError                 no usable response from the API
    ├── TransientError       may pass: worth a retry
    │   └── RateLimitedError 420, 429 or overload: all requests of this process to the API pause first
    └── RefusedError         will not pass by itself, or not soon enough
        ├── DeniedError      an authorised request, refused twice
        └── NotFoundError    404
"""

import copy
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self

import httpx

from tasks.esi.answers import Answer, read_offer, read_page, time_of
from tasks.esi.body import R, decode, read_body
from tasks.esi.endpoint import Endpoint, Params
from tasks.esi.errors import DeniedError, RateLimitedError, RefusedError, TransientError
from tasks.esi.gate import Gate
from tasks.esi.pool import DEFAULT_URL, ESI_HEADERS, Pool, Tokens, read_user_agent
from tasks.network import Waits

HEADS = 2  # failures in a row before a run sends GET instead

P = ParamSpec("P")


class Esi:
    """One run's client for ESI or another API, which counts failures and waits. Use it as a context manager.

    Its arguments and errors are those of `Pool`.
    """

    def __init__(
        self,
        url: str,
        user_agent: str,
        fetch_concurrency: int,
        tokens: Tokens | None = None,
        auth: httpx.Auth | None = None,
        headers: Mapping[str, str] = ESI_HEADERS,
    ) -> None:
        self.fetch_concurrency = fetch_concurrency
        self._pool = Pool(url, user_agent, fetch_concurrency, tokens, auth, headers)
        self._start()

    def _start(self) -> None:
        self.failures: Counter[str] = Counter()  # failed requests that may be retried, by cause
        self.failed_pages: set[int] = set()  # pages that failed at least once
        self._gate = Gate(self._pool)
        self._denied: dict[str, set[str]] = {}  # causes by request, until it succeeds
        self._failed_heads = 0  # in a row
        self._lock = threading.Lock()

    @classmethod
    def from_environment(
        cls, fetch_concurrency: int, tokens: Tokens | None = None, auth: httpx.Auth | None = None
    ) -> Self:
        """Open a client for `ESI_URL` with `ESI_USER_AGENT`."""
        return cls(os.environ.get("ESI_URL") or DEFAULT_URL, read_user_agent(), fetch_concurrency, tokens, auth)

    def share(self) -> Self:
        """Return a client for another run: the same connections, its own counts."""
        other = copy.copy(self)
        other._start()  # noqa: SLF001 (its own class)
        return other

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.close()

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return self._pool.url

    @property
    def waits(self) -> Waits:
        """How long this run has waited."""
        return self._gate.waits

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `function` on one of `fetch_concurrency` threads; it may make one request at a time."""
        return self._pool.threads.submit(function, *args, **kwargs)

    def head(self, endpoint: Endpoint) -> Answer:
        """Return the headers for an endpoint's latest snapshot, without its items.

        After a refusal, or `HEADS` failures in a row, send GET for the first page instead.

        Raises:
            EsiError: see the module.
        """
        read = partial(read_offer, endpoint=endpoint)
        if self._failed_heads < HEADS:
            try:
                answer = self._request("HEAD", endpoint, endpoint.params, endpoint.name, read)
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
        return self._request("GET", endpoint, endpoint.params_of(endpoint.first_page), endpoint.name, read)

    def get(self, endpoint: Endpoint, page: int) -> Answer:
        """Download one page, numbered as the API does.

        Raises:
            EsiError: see the module.
        """
        read = partial(read_page, endpoint=endpoint)
        return self._request("GET", endpoint, endpoint.params_of(page), endpoint.name_page(page), read, page)

    def get_json(self, path: str, kind: type[R]) -> tuple[R, datetime]:
        """Return the response of an endpoint without pages, and its time by ESI's clock, UTC.

        Args:
            path: of the endpoint, such as `/status`.
            kind: type to decode its JSON to, such as a msgspec.Struct of the fields to keep.

        Raises:
            EsiError: see the module; RefusedError if a value is missing or of the wrong type.
        """

        def read(response: httpx.Response, what: str, deadline: float) -> tuple[R, datetime]:
            return decode(read_body(response, deadline, what), kind, what), time_of(response)

        endpoint = Endpoint(name=path, path=path)
        return self._request("GET", endpoint, {}, path, read)

    def expect(self, pages: int) -> None:
        """Announce how many pages will be requested, so that tokens are reserved in few batches."""
        if self._pool.tokens:
            self._pool.tokens.expect(pages)

    def give_up(self, error: RefusedError) -> None:
        """Fail this run's further requests with `error`: once one page is refused, the rest are useless."""
        self._gate.refused = error

    def count_failure(self, page: int | None, cause: str) -> None:
        """Count a failed request that may be retried."""
        with self._lock:
            self.failures[cause] += 1
            if page is not None:
                self.failed_pages.add(page)

    def _request(
        self,
        method: str,
        endpoint: Endpoint,
        params: Params,
        what: str,
        read: Callable[[httpx.Response, str, float], R],
        page: int | None = None,
    ) -> R:
        self._gate.wait(what, endpoint.dialect.api)
        try:
            answer = self._pool.send(method, endpoint, params, what, read)
        except DeniedError as error:
            causes = self._denied.setdefault(what, set())
            if error.cause in causes:
                raise
            causes.add(error.cause)
            self.count_failure(page, error.cause)
            raise TransientError(f"{error.denial}; retrying once", error.cause) from error
        except TransientError as error:
            self.count_failure(page, error.cause)
            raise
        self._denied.pop(what, None)
        return answer
