"""Connections to an API, and the threads that use them."""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import httpx

from tasks.esi.answers import raise_for_status
from tasks.esi.body import BODY_SECONDS, R
from tasks.esi.endpoint import Endpoint, Params
from tasks.esi.errors import RateLimitedError, TransientError
from tasks.esi.pause import find_pause
from tasks.network import TIMEOUT, check_url, fits_header, trusted

ESI_HEADERS = {"X-Compatibility-Date": "2026-08-18"}
DEFAULT_URL = "https://esi.evetech.net"
DEFAULT_USER_AGENT = "market-data/0.1.0 (set ESI_USER_AGENT to name your contact)"


class Tokens(Protocol):
    """ESI's tokens, where many processes share them."""

    def expect(self, requests: int) -> None:
        """Announce how many requests will be made."""

    def spend(self) -> float:
        """Spend a request's tokens and return 0, or return the seconds to wait before trying again."""

    def note_answer(self, headers: httpx.Headers) -> None:
        """Note the token counts in a response's headers."""

    def pause_all(self, seconds: float) -> None:
        """Pause every process that shares the tokens."""


class Pool:
    """Connections to an API, and the threads that use them, for one run or several.

    Args:
        url: of the API.
        user_agent: names the operator to the API.
        fetch_concurrency: requests in flight at once, never exceeded.
        tokens: to spend on requests, if other processes share them.
        auth: authorises each request, for endpoints that are not public.
        headers: of each request.

    Raises:
        ValueError: `url` is not an http(s) URL, or plain http to another machine; `user_agent` does not fit a header.
    """

    def __init__(
        self,
        url: str,
        user_agent: str,
        fetch_concurrency: int,
        tokens: Tokens | None,
        auth: httpx.Auth | None,
        headers: Mapping[str, str],
    ) -> None:
        self.url = check_url(url, "ESI_URL", DEFAULT_URL)
        if not fits_header(user_agent):
            raise ValueError(f"ESI_USER_AGENT is {user_agent!r}: give printable ASCII")
        self.pause = find_pause(self.url)
        self.tokens = tokens
        self.threads = ThreadPoolExecutor(fetch_concurrency, thread_name_prefix="esi")
        sent = httpx.Headers({"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": user_agent})
        sent.update(headers)  # in whatever case their names are
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

    def send(
        self,
        method: str,
        endpoint: Endpoint,
        params: Params,
        what: str,
        read: Callable[[httpx.Response, str, float], R],
    ) -> R:
        """Send one request and return what `read` makes of the response; a 420 or 429 pauses all requests.

        Raises:
            EsiError: see `tasks.esi.client`.
        """
        try:
            with self._http.stream(method, endpoint.path, params=params) as response:
                if self.tokens:
                    self.tokens.note_answer(response.headers)
                raise_for_status(response, what, endpoint.dialect)
                return read(response, what, time.monotonic() + BODY_SECONDS)
        except RateLimitedError as error:
            self.pause.extend(error.pause_seconds)
            if self.tokens:
                try:
                    self.tokens.pause_all(error.pause_seconds)
                except TransientError as failure:
                    error.add_note(f"other workers were not paused: {failure}")
            raise
        except httpx.HTTPError as error:
            cause = type(error).__name__
            raise TransientError(f"{what}: {cause} from {self.url}: {error}", cause) from error


def read_user_agent() -> str:
    """Return the environment's `ESI_USER_AGENT`, or the default."""
    return os.environ.get("ESI_USER_AGENT") or DEFAULT_USER_AGENT
