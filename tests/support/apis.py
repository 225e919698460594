"""Stand-ins for APIs that are not ESI's market, with pages as these document them."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from tests.support.pages import find_blocks

Item = dict[str, Any]

MODIFIED = 1_764_000_000  # unix time of the first snapshot


class Endpoint(msgspec.Struct):
    """An endpoint with pages; change its fields to have it change."""

    path: str
    items: list[Any]
    size: int = 0  # items on a page; 0 for a single response
    first: int = 1  # number of the first page
    count_header: str = ""
    parameter: str = "page"
    is_dated: bool = False  # names its snapshots by Last-Modified, and Expires five minutes later
    version: str = ""  # names its snapshots, as X-Dataset-Version
    member: str = ""  # of the body with the items, empty if they are the body
    key: str = ""  # that requests need, as Authorization
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
        page = int(query.get(self.parameter, [str(self.first)])[0])
        if method == "GET" and page in self.on_page:
            self.on_page.pop(page)()
        headers = self.headers | {
            "Content-Type": "application/json",
            "Date": formatdate(self.modified + 60, usegmt=True),
        }
        if self.is_dated:
            headers["Last-Modified"] = formatdate(self.modified, usegmt=True)
            headers["Expires"] = formatdate(self.modified + 300, usegmt=True)
        if self.version:
            headers["X-Dataset-Version"] = self.version
        if not self.size:
            return 200, headers, json.dumps(self.items).encode()
        pages = max(1, -(-len(self.items) // self.size))
        if self.statuses.get(page) and method == "GET":
            return self.statuses[page].pop(0), headers, b'{"message": "planned"}'
        if not self.first <= page < self.first + pages:
            return self.past_the_end, headers, b'{"message": "no such page"}'
        start = (page - self.first) * self.size
        found = self.items[start : start + self.size]
        body = {"meta": {}, self.member: found} if self.member else found
        return 200, headers | {self.count_header: str(pages)}, json.dumps(body).encode()


def make_contracts(number: int = 2_500) -> Endpoint:
    """Return ESI's public contracts of a region: X-Pages and Last-Modified, 1,000 a page."""
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
    """Return WordPress's posts: X-WP-TotalPages, no snapshot, 400 past the end."""
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
    """Return Guild Wars 2's commerce prices: X-Page-Total, pages from 0, 200 a page."""
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
    """Return ESI's adjusted prices: one response; some types have only one of the two prices."""
    items = [
        {"type_id": 18 + each, "adjusted_price": round(each * 1.37, 2)}
        | ({"average_price": each / 100} if each % 3 else {})
        for each in range(number)
    ]
    return Endpoint("/markets/prices", items, is_dated=True)


def make_objects(number: int = 120) -> Endpoint:
    """Make a museum's objects: Total-Pages, X-Dataset-Version, items in a member, and a key."""
    items = [
        {
            "id": each,
            "title": f"Object {each}",
            "department": {"id": each % 4, "name": f"Department {each % 4}"},
            "kg": each * 7 % 50 / 10,
            "public": each % 3 > 0,
        }
        for each in range(number)
    ]
    paging: dict[str, Any] = {"size": 50, "count_header": "Total-Pages", "parameter": "p", "member": "data"}
    return Endpoint("/v1/objects", items, version="2026.47", key="Bearer YOUR-KEY", **paging)


def number(value: float | Decimal) -> dict[str, str]:
    """Return a number in DynamoDB's notation."""
    return {"N": format(Decimal(str(value)).normalize(), "f")}


def contracts_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of public contracts, computed another way."""
    records: dict[str, Item] = {}
    for kind in {item["type"] for item in items}:
        of_kind = [item for item in items if item["type"] == kind]
        prices = [item["price"] for item in of_kind if "price" in item]
        record = {"pk": {"S": kind}, "contracts": number(len(of_kind))}
        record["volume"] = number(sum((Decimal(str(item["volume"])) for item in of_kind), Decimal(0)))
        records[kind] = record | ({"cheapest": number(min(prices))} if prices else {})
    return records


def posts_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of posts."""
    return {
        (pk := str(item["id"])): {
            "pk": {"S": pk},
            "date_gmt": {"S": item["date_gmt"]},
            "title": {"S": item["title"]["rendered"]},
        }
        for item in items
    }


def prices_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of the trading post."""
    return {
        (pk := str(item["id"])): {
            "pk": {"S": pk},
            "buy": number(item["buys"]["unit_price"]),
            "sell": number(item["sells"]["unit_price"]),
        }
        for item in items
    }


def adjusted_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of adjusted prices."""
    names = ("adjusted_price", "average_price")
    return {
        (pk := str(item["type_id"])): {"pk": {"S": pk}} | {name: number(item[name]) for name in names if name in item}
        for item in items
    }


def objects_truth(items: list[Item]) -> dict[str, Item]:
    """Return the records of a museum's departments."""
    records: dict[str, Item] = {}
    for name in {item["department"]["name"] for item in items}:
        weights = [Decimal(str(item["kg"])) for item in items if item["department"]["name"] == name and item["public"]]
        records[name] = {"pk": {"S": name}, "objects": number(len(weights)), "kg": number(sum(weights, Decimal(0)))}
    return records


API_CASES: dict[str, tuple[Callable[[], Endpoint], Callable[[list[Item]], dict[str, Item]]]] = {
    "contracts": (make_contracts, contracts_truth),
    "posts": (make_posts, posts_truth),
    "trading-post": (make_prices, prices_truth),
    "adjusted-prices": (make_adjusted_prices, adjusted_truth),
    "museum": (make_objects, objects_truth),
}


def find_declarations(url: str) -> list[str]:
    """Return the deployments of the docs page as YAML, with the address of the stand-ins in place of their APIs'."""
    blocks = [block for block in find_blocks("docs/another-endpoint.md", "yaml") if "paged_api" in block]
    assert all(len(block.splitlines()) <= 20 for block in blocks)
    return [re.sub(r"https://[a-z0-9.]+/", f"{url}/", block) for block in blocks]


def read_declarations(url: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of the page's deployments, by name."""
    found = [msgspec.yaml.decode(block.replace("<<: *market-data\n    ", ""))[0] for block in find_declarations(url)]
    return {each["name"]: each["parameters"] for each in found}


def find_key_code() -> str:
    """Return the page's code that saves the key of the museum."""
    return next(block for block in find_blocks("docs/another-endpoint.md", "python") if "Secret" in block)


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
            if endpoint and endpoint.key not in {"", self.headers.get("Authorization")}:
                status, endpoint = 401, None
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
