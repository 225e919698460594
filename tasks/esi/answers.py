"""Reads ESI's responses: status, headers and body."""

import re
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeVar

import httpx
import msgspec

from tasks.esi.errors import DeniedError, EsiError, NotFoundError, RateLimitedError, RefusedError, TransientError
from tasks.network import TIMEOUT

MAX_BODY_BYTES = 32 * 1024 * 1024  # decompressed; a full page is about 265 KB
MAX_PAGES = 10_000  # all regions together had 1,686 in December 2025
BODY_SECONDS = 30.0  # for a whole body: httpx's read timeout allows a server that sends a byte at a time
MAX_AHEAD = timedelta(minutes=15)  # later dates are wrong: orders change every five minutes, and clocks differ a bit
LIMIT_SECONDS = 60.0  # the pause after a 420 or 429 that names none: ESI's old error window
R = TypeVar("R")


# The error that each status raises, None for none. For others, `CLASSES` goes by the first digit.
STATUSES: dict[int, type[EsiError] | None] = {
    200: None,
    304: TransientError,  # the request was not conditional: a cache has mixed up its clients
    401: DeniedError,  # the token has expired, or EVE SSO cannot verify it now; without a token like any 4xx
    403: DeniedError,  # no access, or EVE SSO cannot verify the token now; without a token like any 4xx
    404: NotFoundError,
    408: TransientError,  # the request took too long to arrive
    420: RateLimitedError,  # too many errors
    421: TransientError,  # the connection reached a server that does not serve ESI
    425: TransientError,  # sent before the connection was ready
    429: RateLimitedError,  # too many tokens
}
CLASSES: dict[int, type[EsiError]] = {
    1: TransientError,  # 101: no other protocol was requested
    2: TransientError,  # 202, 203, 204, 206 …: from a proxy, and not a page
    3: RefusedError,  # redirects are not followed
    4: RefusedError,  # such as 400, 405, 410, 451: a retry would get the same response
    5: TransientError,  # ESI's failure, or a proxy's: 511 from a hotspot, 520 to 530 from a CDN
}  # HTTP has no others: a 999 is not from ESI, and may pass
NO_METHOD = {405, 501}  # HEAD is not supported; a GET of the first page has the same headers
SSO_TROUBLE = "either EVE SSO is in trouble, as during the daily downtime at 11:00 UTC, and a later run will succeed"


class Answer(msgspec.Struct, frozen=True):
    """ESI's response to a request for one page of a market's orders."""

    last_modified: datetime  # names the snapshot, UTC
    pages: int  # X-Pages, 1 or more; 0 if the page came without it
    etag: str  # empty if ESI sent none
    fresh_seconds: float  # Expires - Date, both by ESI's clock; 0 or less means unknown
    body: bytes  # decompressed JSON; empty if only the headers were read
    answered: datetime = msgspec.field(default_factory=partial(datetime.now, UTC))  # by ESI's clock, UTC


def find_class(response: httpx.Response) -> type[EsiError] | None:
    """Return the error class for a response's status, None for a 200."""
    status, request = response.status_code, response.request
    kind = STATUSES[status] if status in STATUSES else CLASSES.get(status // 100, TransientError)
    is_denied = kind is DeniedError and "Authorization" not in request.headers
    return RefusedError if is_denied or (request.method == "HEAD" and status in NO_METHOD) else kind


def raise_for_status(response: httpx.Response, what: str) -> None:
    """Raise the error for a response's status, unless it is a 200.

    Raises:
        EsiError: of a class in `STATUSES` or `CLASSES`.
    """
    kind = find_class(response)
    if kind is None:
        return
    cause = f"ESI {response.status_code}"
    message = f"{what}: ESI answered {response.status_code} {response.reason_phrase}{quote_error(response)}"
    if kind is RateLimitedError:
        seconds = limit_seconds(response.headers)
        raise RateLimitedError(f"{message}; pausing all requests for {seconds:.0f} s", cause, seconds)
    if kind is TransientError:
        raise TransientError(message, cause)
    if kind is DeniedError:
        raise DeniedError(
            message,
            f"a new access token did not help: {SSO_TROUBLE}, or the character must be allowed to dock there and be "
            "authorised for esi-markets.structure_markets.v1",
            cause,
        )
    if response.has_redirect_location:
        message += f", to {response.headers['Location'][:200]!r}: redirects are not followed, set ESI_URL to ESI's own"
    raise NotFoundError(message) if kind is NotFoundError else RefusedError(f"{message}; not retried")


def quote_error(response: httpx.Response) -> str:
    """Return the text of ESI's error body as `: "text"`, empty if there is none."""
    try:
        text = find_error(read_body(response, time.monotonic() + (TIMEOUT.read or 0), "its error"))
    except (TransientError, httpx.HTTPError):
        return ""
    return f': "{text}"' if text else ""


def find_error(body: bytes) -> str:
    """Return the `error` in ESI's error body, empty if there is none."""
    try:
        return str(msgspec.json.decode(body, type=dict[str, object])["error"])[:500]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        return ""


def limit_seconds(headers: httpx.Headers) -> float:
    """Return the pause (s) after a 420 or 429: `Retry-After` (or a date), `X-Esi-Error-Limit-Reset`, or 60."""
    for name in ("Retry-After", "X-Esi-Error-Limit-Reset"):
        value = headers.get(name, "")
        if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
            return float(value)
        if (until := parse_date(value)) is not None:
            now = parse_date(headers.get("Date", "")) or datetime.now(UTC)
            return max(0.0, (until - now).total_seconds())
    return LIMIT_SECONDS


def read_offer(response: httpx.Response, what: str, _deadline: float) -> Answer:
    """Read only the headers of a 200.

    Raises:
        TransientError: see `read_headers`.
    """
    return read_headers(response, what)


def read_page(response: httpx.Response, what: str, deadline: float) -> Answer:
    """Read a 200's headers and body.

    Args:
        response: a 200, its body not yet read.
        what: names the request in messages.
        deadline: for the body, monotonic time.

    Raises:
        TransientError: the body is undecodable, too large or too slow; or see `read_headers`.
    """
    return msgspec.structs.replace(
        read_headers(response, what, needs_pages=False), body=read_body(response, deadline, what)
    )


def read_headers(response: httpx.Response, what: str, *, needs_pages: bool = True) -> Answer:
    """Read the headers of a 200.

    Raises:
        TransientError: one is missing or invalid, or `Last-Modified` is too far ahead of ESI's clock. A retry may get
            valid ones, and so may a GET after a HEAD.
    """
    headers = response.headers
    if not headers.get("X-Pages") and not headers.get("Last-Modified"):
        kind = headers.get("Content-Type", "")[:40]
        quoted = quote_error(response) if response.request.method == "GET" else ""
        raise TransientError(f"{what}: the 200 is not from ESI, Content-Type {kind!r}{quoted}")
    last_modified = parse_date(headers.get("Last-Modified", ""))
    if last_modified is None:
        raise TransientError(
            f"{what}: Last-Modified is {headers.get('Last-Modified')!r}, expected an HTTP date", "unreadable headers"
        )
    answered = time_of(response)
    if last_modified > answered + MAX_AHEAD:
        raise TransientError(
            f"{what}: Last-Modified is {last_modified}, expected at most 15 minutes after {answered}, the time of the "
            "response; retrying",
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
    """Return the time of a response by ESI's clock, UTC; by this machine's if it has no `Date`."""
    return parse_date(response.headers.get("Date", "")) or datetime.now(UTC)


def decode(body: bytes, kind: type[R], what: str) -> R:
    """Decode and validate JSON.

    Raises:
        RefusedError: a value is missing or of the wrong type.
        TransientError: it is not JSON, or an error of ESI's despite the 200.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if text := find_error(body):
            raise TransientError(f'{what}: ESI answered 200, but with the error "{text}"', "error as 200") from error
        raise RefusedError(f"{what}: {error}; nothing was stored, the next run tries again") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TransientError(f"{what}: the body is not JSON: {error}") from error


def read_pages(value: str, what: str, *, is_optional: bool) -> int:
    """Read `X-Pages`; 0 means 1, as an empty region still has one page.

    Raises:
        TransientError: it is invalid, or missing and not optional.
    """
    if is_optional and not value:
        return 0
    if not (re.fullmatch(r"[0-9]{1,6}", value) and int(value) <= MAX_PAGES):
        raise TransientError(
            f"{what}: X-Pages is {value[:40]!r}, expected 1 to {MAX_PAGES:,}; nothing was stored", "unreadable headers"
        )
    return max(1, int(value))


def read_body(response: httpx.Response, deadline: float, what: str) -> bytes:
    """Read and decompress a body; stop once it exceeds `MAX_BODY_BYTES` or `deadline`.

    httpx's own decoding would decompress all of a gzip bomb before its size could be checked.

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
    """Decompress a piece of a gzip stream to at most `most_bytes`.

    Raises:
        TransientError: it is not gzip.
    """
    try:
        return gunzip.decompress(packed, most_bytes)
    except zlib.error as error:
        raise TransientError(f"{what}: the body is not gzip: {error}") from error


def parse_date(value: str) -> datetime | None:
    """Return an HTTP date (RFC 9110, 5.6.7) in UTC, None if it is invalid."""
    try:
        date = parsedate_to_datetime(value)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
