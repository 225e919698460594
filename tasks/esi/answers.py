"""Reads an API's responses: status, headers and body."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

import httpx
import msgspec

from tasks.esi.body import find_error, read_body
from tasks.esi.endpoint import Endpoint
from tasks.esi.errors import DeniedError, EsiError, NotFoundError, RateLimitedError, RefusedError, TransientError

ERROR_SECONDS = 10.0  # for the body of an error, which must not delay a pause
MAX_PAGES = 10_000  # all regions together had 1,686 in December 2025
LIMIT_SECONDS = 60.0  # the pause after a 420 or 429 that names none: ESI's old error window

# The error that each status raises, None for none. Others raise a RefusedError from 300 to 499: redirects are not
# followed, and a retry would get the same response. The rest may pass: 2xx such as 204 come from a proxy, 5xx are a
# failure of ESI's or a proxy's, and HTTP has no 999.
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
NO_METHOD = {405, 501}  # HEAD is not supported; a GET of the first page has the same headers
SSO_TROUBLE = "either EVE SSO is in trouble, as during the daily downtime at 11:00 UTC, and a later run will succeed"


class Answer(msgspec.Struct, frozen=True):
    """The response to a request for one page, or for its headers."""

    last_modified: datetime  # of the snapshot, UTC; of the response if the API does not say
    pages: int  # 1 or more; 0 if the page came without a count
    etag: str  # empty if there was none
    fresh_seconds: float  # Expires - Date, both by the API's clock; 0 or less if unknown
    body: bytes = b""  # decompressed JSON; empty if only the headers were read
    answered: datetime = msgspec.field(default_factory=partial(datetime.now, UTC))  # by the API's clock, UTC
    name: str | None = ""  # of the snapshot, as the API gives it, empty if `last_modified` names it; None without one


def find_class(response: httpx.Response, *, is_esi: bool = True) -> type[EsiError] | None:
    """Return the error class for a response's status, None for a 200."""
    status, request = response.status_code, response.request
    kind = STATUSES.get(status, RefusedError if 300 <= status < 500 else TransientError)
    if status == 400 and not is_esi:  # some APIs answer 400 for a page past the end
        kind = NotFoundError
    elif status == 503 and not is_esi and "Retry-After" in response.headers:  # an overload
        kind = RateLimitedError
    # ESI may accept a refused request with a new access token; other APIs have no single sign-on.
    is_final = kind is DeniedError and not (is_esi and "Authorization" in request.headers)
    return RefusedError if is_final or (request.method == "HEAD" and status in NO_METHOD) else kind


def raise_for_status(response: httpx.Response, endpoint: Endpoint) -> None:
    """Raise the error for a response's status, unless it is a 200."""
    kind = find_class(response, is_esi=endpoint.is_esi)
    if kind is None:
        return
    cause = f"{endpoint.api} {response.status_code}"
    said = f"{response.status_code} {response.reason_phrase}{quote_error(response)}"
    message = f"{endpoint.name}: {endpoint.api} answered {said}"
    if kind is RateLimitedError:
        seconds = limit_seconds(response.headers)
        raise RateLimitedError(f"{message}; pausing all requests for {seconds:.0f} s", cause, seconds)
    if kind is DeniedError:
        raise DeniedError(
            message,
            f"a new access token did not help: {SSO_TROUBLE}, or the character must be allowed to dock there and be "
            "authorised for esi-markets.structure_markets.v1",
            cause,
        )
    if response.has_redirect_location:
        advice = "set ESI_URL to ESI's own" if endpoint.is_esi else "give that as url"
        message += f", to {response.headers['Location'][:200]!r}: redirects are not followed, {advice}"
    raise kind(f"{message}; not retried" if kind is RefusedError else message, cause)


def quote_error(response: httpx.Response) -> str:
    """Return the text of an error body as `: "text"`, empty if there is none."""
    try:
        text = find_error(read_body(response, "its error", ERROR_SECONDS), ("error", "message", "text"))
    except (TransientError, httpx.HTTPError):
        return ""
    return f': "{text}"' if text else ""


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


def read_page(response: httpx.Response, endpoint: Endpoint) -> Answer:
    """Read the headers and the body of a 200; see `read_headers` and `read_body` for the errors."""
    return msgspec.structs.replace(read_headers(response, endpoint), body=read_body(response, endpoint.name))


def read_headers(response: httpx.Response, endpoint: Endpoint) -> Answer:
    """Read the headers of a 200.

    Raises:
        TransientError: one is missing or invalid, or the snapshot is too far ahead of the API's clock. A retry may get
            valid ones, and so may a GET after a HEAD.
    """
    headers, answered = response.headers, time_of(response)
    counts = endpoint.count_header if endpoint.page_parameter else ""
    expected = [name for name in (counts, endpoint.snapshot_header) if name]
    if expected and not any(headers.get(name) for name in expected):
        kind = headers.get("Content-Type", "")[:40]
        quoted = quote_error(response) if response.request.method == "GET" else ""
        raise TransientError(
            f"{endpoint.name}: the 200 is not from {endpoint.api}, or not of this endpoint: it has no "
            f"{' and no '.join(expected)}, Content-Type {kind!r}{quoted}"
        )
    last_modified, name = read_snapshot(headers, endpoint, answered)
    expires, date = parse_date(headers.get(endpoint.expires_header or "-", "")), parse_date(headers.get("Date", ""))
    fresh_seconds = (expires - date).total_seconds() if expires and date else 0.0
    return Answer(
        last_modified=last_modified,
        pages=read_pages(headers.get(counts, ""), endpoint) if counts else 1,
        etag=headers.get("ETag", ""),
        fresh_seconds=fresh_seconds if fresh_seconds <= endpoint.most_ahead.total_seconds() else 0.0,
        answered=answered,
        name=name,
    )


def read_snapshot(headers: httpx.Headers, endpoint: Endpoint, answered: datetime) -> tuple[datetime, str | None]:
    """Return a snapshot's date and an empty name; if no date names it, the response's date, and the name or None.

    Raises:
        TransientError: the header is missing, or is `Last-Modified` and no date, or the date is too far ahead.
    """
    header = endpoint.snapshot_header
    if not header:
        return answered, None
    name = headers.get(header, "")
    date = parse_date(name)
    if not name or (date is None and header.lower() == "last-modified"):
        raise TransientError(
            f"{endpoint.name}: {header} is {headers.get(header)!r}, expected an HTTP date", "unreadable headers"
        )
    if date is None:
        return answered, name
    if date > answered + endpoint.most_ahead:
        minutes = endpoint.most_ahead.total_seconds() / 60
        raise TransientError(
            f"{endpoint.name}: {header} is {date}, expected at most {minutes:g} minutes after {answered}, the time of "
            "the response; retrying",
            f"{header} ahead",
        )
    return date, ""


def time_of(response: httpx.Response) -> datetime:
    """Return the time of a response by the API's clock, UTC; by this machine's if it has no `Date`."""
    return parse_date(response.headers.get("Date", "")) or datetime.now(UTC)


def read_pages(value: str, endpoint: Endpoint) -> int:
    """Read the number of pages, where 0 means 1: an empty region has one. Raise a TransientError if it is invalid."""
    if not (value or endpoint.needs_count):
        return 0
    if not (re.fullmatch(r"[0-9]{1,6}", value) and int(value) <= MAX_PAGES):
        raise TransientError(
            f"{endpoint.name}: {endpoint.count_header} is {value[:40]!r}, expected 1 to {MAX_PAGES:,}; nothing was "
            "stored",
            "unreadable headers",
        )
    return max(1, int(value))


def parse_date(value: str) -> datetime | None:
    """Return an HTTP date (RFC 9110, 5.6.7) in UTC, None if it is invalid."""
    try:
        date = parsedate_to_datetime(value)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
