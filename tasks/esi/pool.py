"""Connections to an API, and the threads that use them."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx

from tasks.esi.answers import raise_for_status
from tasks.esi.body import R
from tasks.esi.endpoint import Endpoint, Params
from tasks.esi.errors import RateLimitedError, TransientError
from tasks.esi.pause import Limit, find_pause
from tasks.network import TIMEOUT, check_url, fits_header, trusted

ESI_HEADERS = {"X-Compatibility-Date": "2026-08-18"}
DEFAULT_URL = "https://esi.evetech.net"
DEFAULT_USER_AGENT = "market-data/0.1.0 (set ESI_USER_AGENT to name your contact)"


class Pool:
    """Connections to an API, and the threads that use them, for one run or several; see `Esi` for the arguments."""

    def __init__(
        self,
        url: str,
        user_agent: str,
        fetch_concurrency: int,
        limit: Limit,
        auth: httpx.Auth | None,
        headers: Mapping[str, str],
    ) -> None:
        self.url = check_url(url, "ESI_URL", DEFAULT_URL)
        if not fits_header(user_agent):
            raise ValueError(f"ESI_USER_AGENT is {user_agent!r}: give printable ASCII")
        self.pause = find_pause(self.url)
        self.limit = limit
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
        self, method: str, endpoint: Endpoint, params: Params, what: str, read: Callable[[httpx.Response, str], R]
    ) -> R:
        """Send a request, and return what `read` makes of the answer or raise an EsiError; a 420 or 429 pauses all."""
        try:
            with self._http.stream(method, endpoint.path, params=params) as response:
                self.limit.note_answer(response.headers)
                raise_for_status(response, what, endpoint)
                return read(response, what)
        except RateLimitedError as error:
            self.pause.extend(error.pause_seconds)
            try:
                self.limit.pause_all(error.pause_seconds)
            except TransientError as failure:
                error.add_note(f"other workers were not paused: {failure}")
            raise
        except httpx.HTTPError as error:
            cause = type(error).__name__
            raise TransientError(f"{what}: {cause} from {self.url}: {error}", cause) from error


def read_user_agent() -> str:
    """Return the environment's `ESI_USER_AGENT`, or the default."""
    return os.environ.get("ESI_USER_AGENT") or DEFAULT_USER_AGENT
