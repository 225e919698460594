"""The HTTP client, against a server that misbehaves on purpose."""

import gzip
import re
import socketserver
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from typing import NamedTuple

import pytest

from tasks.esi import body
from tasks.esi.body import MAX_BODY_BYTES
from tasks.esi.client import Esi, Pool
from tasks.esi.errors import EsiError, NotFoundError, RateLimitedError, RefusedError, TransientError
from tasks.esi.markets import find_market
from tasks.esi.pause import find_pause

GOOD = "Last-Modified: Tue, 24 Nov 2026 14:00:00 GMT\r\nX-Pages: 7\r\n"
PAGE = gzip.compress(b"[]")


def reply(status: str, headers: str = "", body: bytes = b"", length: int | None = None) -> bytes:
    """Return a response as it is sent over the wire."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {size}\r\n\r\n".encode() + body


def page(body: bytes, headers: str = GOOD) -> bytes:
    """Return a 200 with a gzipped body."""
    return reply("200 OK", headers + "Content-Encoding: gzip\r\n", body)


def bomb() -> bytes:
    """Return 256 MiB of zeros, gzipped."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()


PASS = [202, 203, 204, 205, 206, 226, 304, 408, 421, 425, 500, 501, 505, 507, 511, 521, 522, 525, 526, 530, 599, 999]
STAY = [300, 305, 400, 401, 402, 403, 405, 406, 407, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 422, 424, 426]
STAY += [428, 431, 451, 499]


class Case(NamedTuple):
    """What the server sends, and the error that the client should raise."""

    sent: bytes
    error: type[EsiError]
    message: str


CASES = {
    "420": Case(reply("420 Enhance", "X-Esi-Error-Limit-Reset: 0\r\n"), RateLimitedError, "420 Enhance; .* for 0 s"),
    "429 in seconds": Case(reply("429 Too Many", "Retry-After: 0\r\n"), RateLimitedError, "429 Too Many; .* for 0 s"),
    "429 at a date": Case(
        reply("429 Too Many", "Retry-After: Tue, 24 Nov 2026 14:00:00 GMT\r\nDate: Tue, 24 Nov 2026 14:00:00 GMT\r\n"),
        RateLimitedError,
        "pausing all requests for 0 s",
    ),
    "500": Case(reply("500 Internal", body=b'{"error":"oops"}'), TransientError, 'ESI answered 500 Internal: "oops"$'),
    "502 with HTML": Case(reply("502 Bad Gateway", body=b"<html>"), TransientError, "ESI answered 502 Bad Gateway$"),
    "503": Case(reply("503 Unavailable"), TransientError, "503"),
    "504": Case(reply("504 Timeout"), TransientError, "504"),
    "520": Case(reply("520 Unknown"), TransientError, "520"),
    "400": Case(reply("400 Bad Request", body=b'{"error":"no"}'), RefusedError, '400 Bad Request: "no"; .*not retried'),
    "403": Case(reply("403 Forbidden"), RefusedError, "403 Forbidden; not retried"),
    "404": Case(
        reply("404 Not Found", body=b'{"error":"past the end"}'), NotFoundError, '404 Not Found: "past the end"$'
    ),
    "redirect": Case(
        reply("302 Found", "Location: http://127.0.0.2/\r\n"), RefusedError, "302 Found, to 'http://127.0.0.2/': red"
    ),
    "closed before the answer": Case(b"", TransientError, "RemoteProtocolError from http://127.0.0.1"),
    "closed within the body": Case(page(PAGE)[:-3], TransientError, "RemoteProtocolError"),
    "truncated gzip": Case(page(PAGE[:-9]), TransientError, "the body ends before its gzip does"),
    "broken gzip": Case(page(b"\x1f\x8b\x08" + bytes(20)), TransientError, "the body is not gzip|ends before its gzip"),
    "no gzip": Case(page(b"[]"), TransientError, "the body is not gzip"),
    "bomb": Case(page(bomb()), TransientError, f"the body is larger than {MAX_BODY_BYTES:,} bytes"),
    "other encoding": Case(
        reply("200 OK", GOOD + "Content-Encoding: br\r\n", b"x"), TransientError, "encoded as 'br', expected gzip"
    ),
    "no date": Case(page(PAGE, "X-Pages: 7\r\n"), TransientError, "Last-Modified is None, expected an HTTP date"),
    "garbled date": Case(page(PAGE, "Last-Modified: now\r\nX-Pages: 7\r\n"), TransientError, "Last-Modified is 'now'"),
    "somebody else's page": Case(
        reply("200 OK", "Content-Type: text/html\r\n", b"<html>"), TransientError, "is not from ESI, .* 'text/html'"
    ),
    "garbage after gzip": Case(page(PAGE + b"x"), TransientError, "the body is not gzip|ends before its gzip"),
    "garbled page count": Case(page(PAGE, GOOD.replace("7", "seven")), TransientError, "X-Pages is 'seven'"),
    "endless page count": Case(page(PAGE, GOOD.replace("7", "9" * 5000)), TransientError, "X-Pages is '9{40}'"),
    "23 h ahead of ESI": Case(
        page(PAGE, GOOD + "Date: Mon, 23 Nov 2026 15:00:00 GMT\r\n"),
        TransientError,
        "Last-Modified is 2026-11-24 14:00:00.*, expected at most 15 minutes after 2026-11-23 15:00:00",
    ),
    "23 h ahead of this clock": Case(
        page(PAGE, f"Last-Modified: {formatdate(time.time() + 82_800, usegmt=True)}\r\nX-Pages: 7\r\n"),
        TransientError,
        "Last-Modified is .*, expected at most 15 minutes after .*; retrying",
    ),
    "101": Case(
        reply("101 Switching Protocols", "Upgrade: x\r\nConnection: Upgrade\r\n"), TransientError, "RemoteProtocolError"
    ),
    **{f"{code}": Case(reply(f"{code} X", GOOD), TransientError, f"answered {code} X$") for code in PASS},
    **{f"{code}": Case(reply(f"{code} X", GOOD), RefusedError, f"{code} X; not retried") for code in STAY},
    "error that is no text": Case(reply("403 No", body=b'{"error":"\xff"}'), RefusedError, "403 No; not retried"),
    "too many pages": Case(page(PAGE, GOOD.replace("7", "1000000")), TransientError, "X-Pages is '1000000'"),
}


HEADS = {
    "405": Case(reply("405 Method Not Allowed"), RefusedError, "405 Method Not Allowed; not retried"),
    "501": Case(reply("501 Not Implemented"), RefusedError, "501 Not Implemented; not retried"),
    "no count": Case(reply("200 OK", GOOD.split("X-P", maxsplit=1)[0]), TransientError, "X-Pages is '', expected 1 to"),
    "no date": Case(reply("200 OK", "X-Pages: 7\r\n"), TransientError, "Last-Modified is None, expected an HTTP date"),
    "garbled count": Case(reply("200 OK", GOOD.replace("7", "seven")), TransientError, "X-Pages is 'seven'"),
    "no headers": Case(reply("200 OK"), TransientError, "the 200 is not from ESI"),
    "429": Case(reply("429 Too Many", "Retry-After: 0.5\r\n"), RateLimitedError, "429 Too Many; .* for 0 s"),
}


class Misbehaving(socketserver.StreamRequestHandler):
    """Sends the case whose number is the requested region, and hangs up."""

    seen: list[str] = []  # noqa: RUF012 (one list for all connections)

    def handle(self) -> None:
        """Answer one request."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.rfile.read(1)
        self.seen.append(head.decode())
        region = int(re.findall(rb"/markets/(\d+)/", head)[0])
        if head.startswith(b"HEAD") and region in range(NO_HEAD, NO_HEAD + len(HEADS)):
            self.wfile.write(list(HEADS.values())[region - NO_HEAD].sent)
        elif region < len(CASES):
            self.wfile.write(list(CASES.values())[region].sent)
        elif region == DRIP:
            self.wfile.write(page(PAGE)[: -len(PAGE)])
            for number in PAGE:
                self.wfile.write(bytes([number]))
                time.sleep(0.05)  # the slow body is what the test is about
        else:
            self.wfile.write(ODD.get(region, page(PAGE, GOOD + 'ETag: "a"\r\nDate: x\r\n')))


DRIP, FINE, MEMBERS, UNCOUNTED, EMPTY, NO_HEAD = 1000, 2000, 3000, 4000, 5000, 6000
ODD = {  # odd, but allowed
    MEMBERS: page(gzip.compress(b"[") + gzip.compress(b"]")),
    UNCOUNTED: page(PAGE, GOOD.split("X-P", maxsplit=1)[0]),
    EMPTY: page(PAGE, GOOD.replace("7", "0")),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Yield the address of the server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Misbehaving) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the operator."""
    monkeypatch.setenv("ESI_USER_AGENT", "tests")


@pytest.fixture
def esi(url: str) -> Iterator[Esi]:
    """Yield a client of the server."""
    with Esi(Pool(url, 2)) as opened:
        yield opened


@pytest.mark.parametrize("name", CASES)
def test_response_has_its_error(esi: Esi, name: str) -> None:
    """Each response raises the error whose class says what happens next, and the message names the page."""
    case = CASES[name]
    with pytest.raises(case.error, match=case.message) as caught:
        esi.get(find_market(list(CASES).index(name)).endpoint, 3)
    assert type(caught.value) is case.error
    assert str(caught.value).startswith(f"page 3 of region {list(CASES).index(name)}: ")


def test_refused_connection_is_transient() -> None:
    """A refused connection is a transient error."""
    with (
        Esi(Pool("http://127.0.0.1:9", 1)) as esi,
        pytest.raises(TransientError, match="ConnectError from http://127"),
    ):
        esi.head(find_market(FINE).endpoint)


def test_dripping_body_is_given_up(esi: Esi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that arrives byte by byte, so that no read times out, is given up at its deadline."""
    monkeypatch.setattr(body, "BODY_SECONDS", 0.3)
    with pytest.raises(TransientError, match="the body was not complete after 0 s"):
        esi.get(find_market(DRIP).endpoint, 1)


def test_good_page_is_read(esi: Esi) -> None:
    """A good response has its snapshot, page count, ETag and body; dates that make no sense are ignored."""
    answer = esi.get(find_market(FINE).endpoint, 1)
    assert (answer.pages, answer.etag, answer.body) == (7, '"a"', b"[]")
    assert answer.last_modified == datetime(2026, 11, 24, 14, tzinfo=UTC)
    assert answer.fresh_seconds == 0


@pytest.mark.parametrize(("region", "pages"), [(MEMBERS, 7), (UNCOUNTED, 0), (EMPTY, 1)])
def test_odd_page_is_read(esi: Esi, region: int, pages: int) -> None:
    """A gzip of several members, a page without a page count, and a count of 0 are accepted."""
    answer = esi.get(find_market(region).endpoint, 1)
    assert (answer.pages, answer.body) == (pages, b"[]")


def test_offer_must_have_a_count(esi: Esi) -> None:
    """Without a page count, from HEAD or from GET of the first page, the pages to fetch are unknown."""
    for method in ("HEAD", "HEAD", "GET", "GET"):
        with pytest.raises(TransientError, match="X-Pages is '', expected 1 to 10,000"):
            esi.head(find_market(UNCOUNTED).endpoint)
        assert Misbehaving.seen[-1].startswith(method)


@pytest.mark.parametrize("name", HEADS)
def test_head_gives_way_to_get(esi: Esi, name: str) -> None:
    """GET replaces a refused HEAD at once, a transiently failing one at the third attempt, a rate-limited one never."""
    case, region = HEADS[name], NO_HEAD + list(HEADS).index(name)
    asked = len(Misbehaving.seen)
    for _ in range({RefusedError: 0, TransientError: 2, RateLimitedError: 4}[case.error]):
        with pytest.raises(case.error, match=case.message):
            esi.head(find_market(region).endpoint)
    if case.error is not RateLimitedError:
        assert (esi.head(find_market(region).endpoint).pages, esi.head(find_market(region).endpoint).body) == (7, b"")
    methods = [head.split(" ", 1)[0] for head in Misbehaving.seen[asked:]]
    wanted = {
        RefusedError: "HEAD GET GET",
        TransientError: "HEAD HEAD GET GET",
        RateLimitedError: "HEAD HEAD HEAD HEAD",
    }
    assert methods == wanted[case.error].split()


def test_request_says_what_esi_asks_for(esi: Esi) -> None:
    """A request has the compatibility date, the user agent and gzip; `order_type` is all."""
    esi.get(find_market(FINE).endpoint, 5)
    head = Misbehaving.seen[-1].lower()
    assert f"get /markets/{FINE}/orders?order_type=all&page=5 http/1.1" in head
    for line in ("x-compatibility-date: 2026-08-18", "user-agent: tests", "accept-encoding: gzip"):
        assert line in head


def test_limit_pauses_all_requests(url: str) -> None:
    """After a 420 or 429, all clients of that address pause; clients of other addresses do not."""
    until = time.monotonic() + 0.4
    find_pause(url).extend(0.4)  # as after a 429
    local = url.replace("127.0.0.1", "localhost")
    with Esi(Pool(url, 1)) as held, Esi(Pool(local, 1)) as other:
        other.head(find_market(FINE).endpoint)
        assert time.monotonic() < until
        held.head(find_market(FINE).endpoint)
        assert time.monotonic() >= until


def test_pause_is_as_long_as_esi_says(url: str) -> None:
    """The pause lasts as long as a 429's `Retry-After` says; a shorter one later does not end it."""
    for seconds in (5.0, 1.0):
        find_pause(url).extend(seconds)
    left = find_pause(url).seconds
    find_pause.cache_clear()
    assert 4.5 < left <= 5.0


def test_settings_come_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ESI_URL` and `ESI_USER_AGENT` are used; by default the real ESI, and a user agent that asks for a contact."""
    monkeypatch.setenv("ESI_URL", url + "/")
    monkeypatch.setenv("ESI_USER_AGENT", "me@example.com")
    with Esi.from_environment(1) as esi:
        esi.head(find_market(FINE).endpoint)
    assert "user-agent: me@example.com" in Misbehaving.seen[-1].lower()
    monkeypatch.delenv("ESI_URL")
    with Esi.from_environment(1) as esi:
        assert esi.url == "https://esi.evetech.net"


@pytest.mark.parametrize("user_agent", ["José <a@b>", "me\r\nCookie: a=b"])
def test_sender_that_fits_in_no_header_is_refused(url: str, user_agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `ESI_USER_AGENT` that does not fit into a header is refused at once, and the message has its value."""
    monkeypatch.setenv("ESI_USER_AGENT", user_agent)
    with pytest.raises(ValueError, match="ESI_USER_AGENT is '.*': give printable ASCII"):
        Pool(url, 1)


def test_threads_bound_the_requests(url: str) -> None:
    """However much is submitted, no more than `fetch_concurrency` calls run at once."""
    running, most, lock = 0, 0, threading.Lock()
    barrier = threading.Barrier(3)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(5)
        with lock:
            running -= 1

    with Esi(Pool(url, 3)) as esi:
        for future in [esi.submit(work) for _ in range(9)]:
            future.result()
    assert most == 3


def test_bomb_takes_no_memory(esi: Esi) -> None:
    """A body that unpacks to 256 MiB is dropped while it is unpacked, so memory does not grow."""
    tracemalloc.start()
    with pytest.raises(TransientError, match="the body is larger than 33,554,432 bytes"):
        esi.get(find_market(list(CASES).index("bomb")).endpoint, 3)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2.5 * MAX_BODY_BYTES  # zlib's buffer and its output
