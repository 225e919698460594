"""ESI's responses: the error class of each status, and the values of headers."""

from datetime import UTC, datetime
from email.utils import formatdate

import httpx
import pytest

from tasks.esi.answers import find_class, limit_seconds, parse_date, read_headers
from tasks.esi.errors import RefusedError
from tasks.esi.markets import find_market


def test_each_class_of_status_has_its_error() -> None:
    """Every status from 100 to 999 has a class: it is read, transient or refused."""
    request = httpx.Request("GET", "https://esi.evetech.net/")
    kinds = {status: find_class(httpx.Response(status, request=request)) for status in range(100, 1000)}
    assert [status for status, kind in kinds.items() if kind is None] == [200]
    refused = {status for status, kind in kinds.items() if kind and issubclass(kind, RefusedError)}
    assert refused == {*range(300, 500)} - {304, 408, 420, 421, 425, 429}


def test_dates_are_in_utc() -> None:
    """A date in another time zone becomes the same instant in UTC."""
    assert parse_date("Tue, 24 Nov 2026 14:00:00 +0200") == datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert str(parse_date("Tue, 24 Nov 2026 14:00:00 +0200")) == "2026-11-24 12:00:00+00:00"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17.0),
        ({"X-Esi-Error-Limit-Reset": "42"}, 42.0),
        ({"Retry-After": "17", "X-Esi-Error-Limit-Reset": "42"}, 17.0),
        ({"Retry-After": "Tue, 24 Nov 2026 14:01:40 GMT", "Date": "Tue, 24 Nov 2026 14:00:00 GMT"}, 100.0),
        ({"Retry-After": "Tue, 24 Nov 2020 14:01:40 GMT"}, 0.0),
        ({"Retry-After": "17.5"}, 17.5),
        ({"Retry-After": "soon"}, 60.0),
        ({"Retry-After": "²"}, 60.0),
        ({"Retry-After": "9" * 400}, 60.0),
        ({}, 60.0),
    ],
)
def test_limit_names_its_pause(headers: dict[str, str], seconds: float) -> None:
    """The pause is what ESI says, in seconds or as a date by ESI's clock; a minute if ESI says nothing."""
    assert limit_seconds(httpx.Headers(headers, encoding="utf-8")) == seconds


@pytest.mark.parametrize(
    "value", ["", "now", "Tue, 99 Nov 2026 14:00:00 GMT", "2026", "Tue, 24 Nov 2026 14:00:00 +" + "9" * 25]
)
def test_no_date_is_none(value: str) -> None:
    """Anything but an HTTP date is None, and raises no error."""
    assert parse_date(value) is None


@pytest.mark.parametrize(("ahead", "fresh_seconds"), [(240, 240), (900, 900), (901, 0), (82_800, 0), (-5, -5)])
def test_expires_is_believed_for_15_minutes(ahead: int, fresh_seconds: float) -> None:
    """An `Expires` that is more than 15 minutes after the response's `Date` is ignored."""
    now = 1_800_000_000
    dates = {"Last-Modified": now, "Date": now, "Expires": now + ahead}
    headers = {name: formatdate(date, usegmt=True) for name, date in dates.items()} | {"X-Pages": "7"}
    answer = read_headers(httpx.Response(200, headers=headers), find_market(7).endpoint)
    assert answer.fresh_seconds == fresh_seconds
