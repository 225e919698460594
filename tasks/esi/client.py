"""The HTTP client for ESI, EVE Online's public API.

Each answer is judged once, by `STATUSES` and its headers; what happens next is in the error's class:

    EsiError                 ESI, or the way to it, gave no usable answer
    ├── TransientError       may pass: worth asking again
    │   └── RateLimitedError 420 or 429: first, every request of this process holds still
    └── RefusedError         will not pass by itself, or not in time
        ├── DeniedError      an authorised request, refused twice
        └── NotFoundError    404
"""

import ipaddress
import os
import re
import ssl
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache, partial
from types import TracebackType
from typing import ClassVar, ParamSpec, Protocol, Self, TypeVar

import httpx
import msgspec

from tasks.network import Waits

COMPATIBILITY_DATE = "2026-08-18"
DEFAULT_URL = "https://esi.evetech.net"
DEFAULT_USER_AGENT = "market-data/0.1.0 (set ESI_USER_AGENT to name your contact)"
MAX_BODY_BYTES = 32 * 1024 * 1024  # decompressed; a full page is about 265 KB
MAX_PAGES = 10_000  # all regions together had 1,686 in December 2025
BODY_SECONDS = 30.0  # a whole body; the read time-out alone lets one through that drips byte by byte
TIMEOUT = httpx.Timeout(connect=5.0, read=10.0, write=5.0, pool=None)
RUN_SECONDS = 1200.0  # later than this a run asks nothing more; ESI's longest limit is 900 s
MAX_AHEAD = timedelta(minutes=15)  # no date is believed beyond: orders change every five, and clocks differ a little
HEADS = 2  # that fail one after the other; then the run asks by GET
FIRST_STRUCTURE_ID = 1_000_000_000_000
LIMIT_SECONDS = 60.0  # a 420's or 429's wait where ESI names none: its old error window

P = ParamSpec("P")
R = TypeVar("R")


class EsiError(Exception):
    """ESI, or the way to it, gave no usable answer."""


class TransientError(EsiError):
    """A time-out, a broken connection, an undecodable body, or a status that says so: may pass."""

    def __init__(self, message: str, cause: str = "unreadable answer") -> None:
        super().__init__(message)
        self.cause = cause  # in a word or two, to be counted


class RateLimitedError(TransientError):
    """420 or 429: nothing is asked for `hold_seconds`."""

    def __init__(self, message: str, cause: str, hold_seconds: float) -> None:
        super().__init__(message, cause)
        self.hold_seconds = hold_seconds


class RefusedError(EsiError):
    """An answer that will not change by asking again."""


class NotFoundError(RefusedError):
    """404: no such region, or a page past the end."""


class DeniedError(RefusedError):
    """ESI or EVE SSO refused an authorised request; believed if it does so again, to a new access token."""

    def __init__(self, said: str, advice: str = "", cause: str = "denied") -> None:
        super().__init__(f"{said}; {advice}")
        self.said = said
        self.cause = cause  # in a word or two, to be counted


# What becomes of an answer, by its status; `CLASSES` has the others, by their first digit. None: it is read.
STATUSES: dict[int, type[EsiError] | None] = {
    200: None,
    304: TransientError,  # no condition was sent: a cache mixes up who has which page
    401: DeniedError,  # the token has ended, or EVE SSO cannot check it now; without a token as any 4xx
    403: DeniedError,  # no access, or EVE SSO cannot check the token now; without a token as any 4xx
    404: NotFoundError,
    408: TransientError,  # the request was too long under way
    420: RateLimitedError,  # too many errors
    421: TransientError,  # the connection led to a server that does not answer for ESI
    425: TransientError,  # sent before the connection was ready
    429: RateLimitedError,  # too many tokens
}
CLASSES: dict[int, type[EsiError]] = {
    1: TransientError,  # 101: nobody asked for another protocol
    2: TransientError,  # 202, 203, 204, 206 …: something between answered, not with a page
    3: RefusedError,  # redirects are not followed
    4: RefusedError,  # such as 400, 405, 410, 451: the same request gets the same answer
    5: TransientError,  # ESI's trouble, or that of what is between: 511 of a hotspot, 520 to 530 of a CDN
}  # beyond, HTTP has none: what sends 999 is not ESI, and may pass
NO_METHOD = {405, 501}  # to a HEAD; GET of the first page says the same
SSO_TROUBLE = "either EVE SSO is in trouble, as it may be at the daily downtime at 11:00 UTC, and a later run passes"


class Answer(msgspec.Struct, frozen=True):
    """What ESI says of one page of a region's orders."""

    last_modified: datetime  # names the snapshot, UTC
    pages: int  # X-Pages, 1 or more; 0 if a page came without it
    etag: str  # empty if ESI sent none
    fresh_seconds: float  # Expires - Date, both by ESI's clock; 0 or less says nothing
    body: bytes  # decompressed JSON; empty if only the headers were asked for
    answered: datetime = msgspec.field(default_factory=partial(datetime.now, UTC))  # by ESI's clock, UTC


class Tokens(Protocol):
    """What requests for orders cost, where many processes share it."""

    def expect(self, requests: int) -> None:
        """Says how many requests will be made."""

    def spend(self) -> float:
        """Spends a request's tokens and gives 0, or gives the seconds to wait before asking again."""

    def note_answer(self, headers: httpx.Headers) -> None:
        """Notes what an answer says of tokens."""

    def hold_all(self, seconds: float) -> None:
        """Makes all who share them hold still."""


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
        self.url = check_url(url)
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
        """Opens the ESI that `ESI_URL` names, as `ESI_USER_AGENT`."""
        url = os.environ.get("ESI_URL") or DEFAULT_URL
        return cls(url, os.environ.get("ESI_USER_AGENT") or DEFAULT_USER_AGENT, fetch_concurrency, tokens, auth)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._http.close()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Runs `function` on one of the `fetch_concurrency` threads; it may make one request at a time."""
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
        """Downloads one page (1 or more) of a region's orders.

        Raises:
            TransientError: see the module.
            RefusedError: see the module.
        """
        params = orders_params(region_id) | {"page": str(page)}
        what = f"page {page} of {name_market(region_id)}"
        return self._ask("GET", orders_path(region_id), what, read_page, params, page)

    def get_json(self, path: str, kind: type[R]) -> tuple[R, datetime]:
        """Downloads what an endpoint without pages says.

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
        """Says how many pages will be asked for, so that their tokens are taken in few helpings."""
        if self._tokens:
            self._tokens.expect(pages)

    def give_up(self, error: RefusedError) -> None:
        """Makes each further request fail with `error`: what one page was refused for, the others need not ask."""
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
        """Counts a request that has to be made again; and after a 420 or 429 all requests hold still."""
        with self._lock:
            self.failures[cause] += 1
            if page is not None:
                self.failed_pages.add(page)
            until = time.monotonic() + hold_seconds
            self._hold_until[self.url] = max(until, self._hold_until.get(self.url, until))

    def _spend(self, what: str) -> None:
        """Spends a request's tokens, if they are shared with others; waits as long as there are none.

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


@cache
def trusted() -> ssl.SSLContext:
    """Gives httpx's own choice of certificates, read once a process: it takes as long as a small region's pages."""
    return httpx.create_ssl_context()


def check_url(url: str, name: str = "ESI_URL", example: str = DEFAULT_URL) -> str:
    """Gives the `url` of a setting without blanks around it and without its last slash.

    Raises:
        ValueError: it is no http(s) address, or plain http to another machine, or has a user, a query or a fragment.
    """
    if "@" in url:
        raise ValueError(f"{name} has a user name or password in it, which would show in messages: give it without")
    try:
        parts = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ValueError(f"{name} is {url!r}: {error}; give an http(s) address, such as {example}") from error
    if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
        raise ValueError(f"{name} is {url!r}: give an http(s) address with no query, such as {example}")
    if parts.scheme == "http" and not is_this_machine(parts.host):
        raise ValueError(f"{name} is {url!r}: plain http is for this machine only, use https")
    return url.strip().rstrip("/")


def is_this_machine(host: str) -> bool:
    """Tells whether `host` is `localhost` or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_structure(region_id: int) -> bool:
    """Tells whether an id is a player structure's; they have other numbers than regions."""
    return region_id >= FIRST_STRUCTURE_ID


def name_market(region_id: int) -> str:
    """Names a region, or a structure, in messages."""
    return f"{'structure' if is_structure(region_id) else 'region'} {region_id}"


def orders_path(region_id: int) -> str:
    """Gives the path of a region's orders, or of a structure's."""
    return f"/markets/structures/{region_id}/" if is_structure(region_id) else f"/markets/{region_id}/orders"


def orders_params(region_id: int) -> dict[str, str]:
    """Gives what to ask for: a region's orders have a type that must be named, and is ignored without a `type_id`."""
    return {} if is_structure(region_id) else {"order_type": "all"}


def find_class(response: httpx.Response) -> type[EsiError] | None:
    """Return the class of the error that an answer's status stands for, None if it is to be read."""
    status, request = response.status_code, response.request
    kind = STATUSES[status] if status in STATUSES else CLASSES.get(status // 100, TransientError)
    is_denied = kind is DeniedError and "Authorization" not in request.headers
    return RefusedError if is_denied or (request.method == "HEAD" and status in NO_METHOD) else kind


def raise_for_status(response: httpx.Response, what: str) -> None:
    """Raise the error whose class says what becomes of an answer, unless it is to be read.

    Raises:
        EsiError: one of the classes that `STATUSES` and `CLASSES` name.
    """
    kind = find_class(response)
    if kind is None:
        return
    cause = f"ESI {response.status_code}"
    said = f"{what}: ESI answered {response.status_code} {response.reason_phrase}{quote_error(response)}"
    if kind is RateLimitedError:
        seconds = limit_seconds(response.headers)
        raise RateLimitedError(f"{said}; nothing is asked for {seconds:.0f} s", cause, seconds)
    if kind is TransientError:
        raise TransientError(said, cause)
    if kind is DeniedError:
        raise DeniedError(
            said,
            f"and so it did with a new access token: {SSO_TROUBLE}, or the character must be allowed to dock there and "
            "be authorised for esi-markets.structure_markets.v1",
            cause,
        )
    if response.has_redirect_location:
        said += f", to {response.headers['Location'][:200]!r}: redirects are not followed, give ESI_URL as ESI has it"
    raise NotFoundError(said) if kind is NotFoundError else RefusedError(f"{said}; this is not asked again")


def quote_error(response: httpx.Response) -> str:
    """Return the `error` of ESI's error body as `: "text"`, or nothing."""
    try:
        text = find_error(read_body(response, time.monotonic() + (TIMEOUT.read or 0), "its error"))
    except (TransientError, httpx.HTTPError):
        return ""
    return f': "{text}"' if text else ""


def find_error(body: bytes) -> str:
    """Return the text of ESI's error body, empty if it is none."""
    try:
        return str(msgspec.json.decode(body, type=dict[str, object])["error"])[:500]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        return ""


def limit_seconds(headers: httpx.Headers) -> float:
    """Gives the wait that a 420 or 429 names: `Retry-After` (seconds or a date), `X-Esi-Error-Limit-Reset`, or 60 s."""
    for name in ("Retry-After", "X-Esi-Error-Limit-Reset"):
        value = headers.get(name, "")
        if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
            return float(value)
        if (until := parse_date(value)) is not None:
            now = parse_date(headers.get("Date", "")) or datetime.now(UTC)
            return max(0.0, (until - now).total_seconds())
    return LIMIT_SECONDS


def read_offer(response: httpx.Response, what: str, _deadline: float) -> Answer:
    """Read a 200's headers alone, those of a HEAD or of the first page.

    Raises:
        TransientError: a header is missing, or makes no sense: the next answer may be whole, as may GET's if HEAD's are
            not.
    """
    try:
        return read_headers(response, what)
    except RefusedError as error:
        raise TransientError(str(error), "unreadable headers") from error


def read_page(response: httpx.Response, what: str, deadline: float) -> Answer:
    """Read a 200's headers and body.

    Args:
        response: a 200, its body not yet read.
        what: names the request in messages.
        deadline: of the body, by the monotonic clock.

    Raises:
        TransientError: the body is undecodable, too large or too slow; or see `read_headers`.
        RefusedError: see `read_headers`.
    """
    return msgspec.structs.replace(
        read_headers(response, what, needs_pages=False), body=read_body(response, deadline, what)
    )


def read_headers(response: httpx.Response, what: str, *, needs_pages: bool = True) -> Answer:
    """Read what a 200's headers say.

    Raises:
        TransientError: they are not ESI's, or `Last-Modified` is further ahead of ESI's clock than can be.
        RefusedError: `Last-Modified` or `X-Pages` is missing or makes no sense.
    """
    headers = response.headers
    if not headers.get("X-Pages") and not headers.get("Last-Modified"):
        kind = headers.get("Content-Type", "")[:40]
        raise TransientError(f"{what}: somebody else than ESI answered 200, Content-Type {kind!r}")
    last_modified = parse_date(headers.get("Last-Modified", ""))
    if last_modified is None:
        raise RefusedError(f"{what}: Last-Modified is {headers.get('Last-Modified')!r}, expected an HTTP date")
    answered = time_of(response)
    if last_modified > answered + MAX_AHEAD:
        raise TransientError(
            f"{what}: Last-Modified is {last_modified}, expected at most 15 minutes after {answered}, the time of the "
            "answer; it is not believed, and asked for again",
            "Last-Modified ahead",
        )
    expires, date = parse_date(headers.get("Expires", "")), parse_date(headers.get("Date", ""))
    return Answer(
        last_modified=last_modified,
        pages=read_pages(headers.get("X-Pages", ""), what, is_optional=not needs_pages),
        etag=headers.get("ETag", ""),
        fresh_seconds=(expires - date).total_seconds() if expires and date else 0.0,
        body=b"",
        answered=answered,
    )


def time_of(response: httpx.Response) -> datetime:
    """Return when ESI answered, by its own clock, UTC; by this machine's if it does not say."""
    return parse_date(response.headers.get("Date", "")) or datetime.now(UTC)


def decode(body: bytes, kind: type[R], what: str) -> R:
    """Decode and validate JSON.

    Raises:
        RefusedError: a value is missing or of the wrong type.
        TransientError: it is no JSON, or ESI's error though the answer said 200.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if text := find_error(body):
            raise TransientError(f'{what}: ESI answered 200, but with the error "{text}"', "error as 200") from error
        raise RefusedError(f"{what}: {error}; nothing was stored, the next run asks again") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TransientError(f"{what}: the body is no JSON: {error}") from error


def read_pages(value: str, what: str, *, is_optional: bool) -> int:
    """Read `X-Pages`; an empty region may say 0, and has one page all the same.

    Raises:
        RefusedError: it makes no sense, or is missing where it must not.
    """
    if is_optional and not value:
        return 0
    if not (re.fullmatch(r"[0-9]{1,6}", value) and int(value) <= MAX_PAGES):
        raise RefusedError(f"{what}: X-Pages is {value[:40]!r}, expected 1 to {MAX_PAGES:,}; nothing was stored")
    return max(1, int(value))


def read_body(response: httpx.Response, deadline: float, what: str) -> bytes:
    """Reads and unpacks a body, and stops as soon as it is larger than MAX_BODY_BYTES or later than `deadline`.

    httpx's own decoding would unpack a gzip bomb whole before it could be measured.

    Raises:
        TransientError: the body is undecodable, too large or too slow.
        httpx.HTTPError: the connection broke or timed out.
    """
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("gzip", "identity"):
        raise TransientError(f"{what}: the body is encoded as {encoding!r}, expected gzip")
    gunzip = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    size_bytes = 0
    for packed in response.iter_raw():
        rest = packed
        while rest:
            if encoding == "identity":
                part, rest = rest, b""
            else:
                if gunzip.eof:  # another member follows: RFC 1952, 2.2
                    gunzip = zlib.decompressobj(wbits=31)
                part, rest = unpack(gunzip, rest, MAX_BODY_BYTES + 1 - size_bytes, what), gunzip.unused_data
            parts.append(part)
            size_bytes += len(part)
            if size_bytes > MAX_BODY_BYTES:
                raise TransientError(f"{what}: the body is larger than {MAX_BODY_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise TransientError(f"{what}: the body was not complete after {BODY_SECONDS:.0f} s")
    if encoding == "gzip" and not gunzip.eof:
        raise TransientError(f"{what}: the body ends before its gzip does")
    return b"".join(parts)


def unpack(gunzip: "zlib._Decompress", packed: bytes, most_bytes: int, what: str) -> bytes:
    """Unpacks a piece of a gzip, at most so many bytes.

    Raises:
        TransientError: it is no gzip.
    """
    try:
        return gunzip.decompress(packed, most_bytes)
    except zlib.error as error:
        raise TransientError(f"{what}: the body is no gzip: {error}") from error


def parse_date(value: str) -> datetime | None:
    """Reads an HTTP date (RFC 9110, 5.6.7), in UTC; None if it is none."""
    try:
        date = parsedate_to_datetime(value)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
