"""Stand-ins for APIs that are not ESI's market, with pages as these document them."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

MODIFIED = 1_764_000_000  # unix time of the first snapshot


class Endpoint(msgspec.Struct):
    """An endpoint with pages; change its fields to have it change."""

    path: str
    items: list[Any]
    size: int = 0  # items on a page; 0 for a single response
    first: int = 1  # number of the first page
    count_header: str = ""
    is_dated: bool = False  # names its snapshots by Last-Modified, and Expires five minutes later
    past_the_end: int = 404
    modified: int = MODIFIED
    statuses: dict[int, list[int]] = {}  # of the first responses for a page
    headers: dict[str, str] = {}  # of each response, besides its own
    on_page: dict[int, Callable[[], object]] = {}  # called once, before a page is given
    latency_seconds: float = 0.0
    seen: list[str] = []  # request lines
    times: list[float] = []  # when they came, monotonic
    in_flight: int = 0
    most_in_flight: int = 0

    def answer(self, method: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the response to a request."""
        page = int(query.get("page", [str(self.first)])[0])
        if method == "GET" and page in self.on_page:
            self.on_page.pop(page)()
        headers = self.headers | {
            "Content-Type": "application/json",
            "Date": formatdate(self.modified + 60, usegmt=True),
        }
        if self.is_dated:
            headers["Last-Modified"] = formatdate(self.modified, usegmt=True)
            headers["Expires"] = formatdate(self.modified + 300, usegmt=True)
        if not self.size:
            return 200, headers, json.dumps(self.items).encode()
        pages = max(1, -(-len(self.items) // self.size))
        if self.statuses.get(page) and method == "GET":
            return self.statuses[page].pop(0), headers, b'{"message": "planned"}'
        if not self.first <= page < self.first + pages:
            return self.past_the_end, headers, b'{"message": "no such page"}'
        start = (page - self.first) * self.size
        return (
            200,
            headers | {self.count_header: str(pages)},
            json.dumps(self.items[start : start + self.size]).encode(),
        )


def make_contracts(number: int = 2_500) -> Endpoint:
    """ESI's public contracts of a region: X-Pages and Last-Modified, 1,000 a page."""
    kinds = ["item_exchange", "auction", "courier"]
    items: list[dict[str, Any]] = [
        {
            "contract_id": 200_000_000 + each,
            "date_expired": "2026-12-01T00:00:00Z",
            "issuer_id": 90_000_000 + each % 77,
            "type": kinds[each % 3],
            "volume": each % 1000 / 100,
        }
        | ({"price": (each * 7919 % 10**9) / 100} if each % 3 < 2 else {"reward": 1_000_000.0})
        for each in range(number)
    ]
    return Endpoint("/contracts/public/10000002", items, 1000, count_header="X-Pages", is_dated=True)


def make_posts(number: int = 230) -> Endpoint:
    """WordPress's posts: X-WP-TotalPages, no snapshot, 400 past the end."""
    items = [
        {
            "id": 100 + each,
            "date_gmt": f"2026-01-{1 + each % 28:02}T12:00:00",
            "title": {"rendered": f"Post “{each}” &amp; more"},
            "content": {"rendered": "<p>…</p>", "protected": False},
            "sticky": each == 0,
        }
        for each in range(number)
    ]
    path = "/news/wp-json/wp/v2/posts"
    return Endpoint(path, items, 100, count_header="X-WP-TotalPages", past_the_end=400)


def make_prices(number: int = 1_150) -> Endpoint:
    """Guild Wars 2's commerce prices: X-Page-Total, pages from 0, 200 a page."""
    items = [
        {
            "id": 24 + 2 * each,
            "whitelisted": each % 2 == 0,
            "buys": {"quantity": each * 3, "unit_price": each % 500},
            "sells": {"quantity": each, "unit_price": each % 500 + 20},
        }
        for each in range(number)
    ]
    return Endpoint("/v2/commerce/prices", items, 200, first=0, count_header="X-Page-Total")


def make_adjusted_prices(number: int = 15_000) -> Endpoint:
    """ESI's adjusted prices: one response; some types have only one of the two prices."""
    items = [
        {"type_id": 18 + each, "adjusted_price": round(each * 1.37, 2)}
        | ({"average_price": each / 100} if each % 3 else {})
        for each in range(number)
    ]
    return Endpoint("/markets/prices", items, is_dated=True)


@contextmanager
def serve_apis(*endpoints: Endpoint, check: Callable[[Any], None] = lambda _headers: None) -> Iterator[str]:
    """Serve endpoints on a free port of 127.0.0.1; yield the address. `check` sees each request's headers."""
    by_path, lock = {endpoint.path: endpoint for endpoint in endpoints}, Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            endpoint = by_path.get(parts.path)
            status, headers, body = 404, dict[str, str](), b"{}"
            if endpoint:
                check(self.headers)
                with lock:
                    endpoint.times.append(time.monotonic())
                    endpoint.seen.append(f"{self.command} {self.path}")
                    endpoint.in_flight += 1
                    endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
                    status, headers, body = endpoint.answer(self.command, parse_qs(parts.query))
                time.sleep(endpoint.latency_seconds)
                with lock:
                    endpoint.in_flight -= 1
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 (http.server's)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
