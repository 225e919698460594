"""The market stand-in's responses: ESI's order route, from order books that are prepared ahead."""

import asyncio
import gzip
import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate

import msgspec

from deployments.local.market.book import make_bodies, make_orders
from deployments.local.market.places import region_pages

ROUTE = re.compile(r"/markets/(\d+)/orders/?")
TOKENS, WINDOW_SECONDS = 12_000, 900
COSTS = {2: 2, 3: 1, 4: 5, 5: 0}  # tokens by the status's first digit
LEAD = 0.2  # share of the interval: so long before it is due, the next snapshot is prepared
JSON = {"Content-Type": "application/json; charset=utf-8"}


class Request(msgspec.Struct, frozen=True):
    """A request's first line and headers."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes = b""


class Reply(msgspec.Struct, frozen=True):
    """A response, without the headers that all responses have."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Generation(msgspec.Struct, frozen=True):
    """A prepared snapshot of a region."""

    modified: int  # unix time
    pages: list[bytes]  # JSON, gzipped


@dataclass
class Limit:
    """A sum over a sliding window, like ESI's limits."""

    window_seconds: int
    used: int = 0
    events: deque[tuple[float, int]] = field(default_factory=deque)  # time and amount, the oldest first

    def add(self, now: float, amount: int) -> None:
        """Add an amount, and drop amounts that have left the window."""
        self.events.append((now, amount))
        self.used += amount
        while self.events[0][0] <= now - self.window_seconds:
            self.used -= self.events.popleft()[1]


@dataclass(eq=False)
class Market:
    """The stand-in's state: snapshots by region and time, and counts of requests."""

    seed: int = 1  # of all orders
    every: int = 300  # seconds between two snapshots
    clock: Callable[[], float] = time.time  # returns the unix time
    latency_seconds: float = 0.0  # added to each response

    def __post_init__(self) -> None:
        self.requests: Counter[str] = Counter()  # by "GET 200"
        self.pages: Counter[str] = Counter()  # GETs by page
        self.in_flight = self.most_in_flight = 0
        self.tokens = Limit(WINDOW_SECONDS)
        self._generations: dict[tuple[int, int], Future[Generation]] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="prepare")

    @property
    def index(self) -> int:
        """The number of the current snapshot."""
        return int(self.clock() // self.every)

    def prepare(self, region_id: int, index: int) -> Future[Generation]:
        """Start to prepare a region's snapshot, unless that has started, and drop the one before the last."""
        with self._lock:
            if (region_id, index) not in self._generations:
                self._generations.pop((region_id, index - 2), None)
                self._generations[region_id, index] = self._threads.submit(self._make, region_id, index)
            return self._generations[region_id, index]

    async def prepare_ahead(self) -> None:
        """Prepare the next snapshot of each region in use when it is due soon, forever."""
        while True:
            await asyncio.sleep(min(5.0, self.every / 20))
            if self.clock() % self.every >= self.every * (1 - LEAD):
                for region_id in [region_id for region_id, index in self._generations if index == self.index]:
                    self.prepare(region_id, self.index + 1)

    def close(self) -> None:
        """Stop preparing."""
        self._threads.shutdown(cancel_futures=True)

    def _make(self, region_id: int, index: int) -> Generation:
        return Generation(index * self.every, list(make_bodies(make_orders(self.seed, region_id, index))))

    def find_region(self, request: Request) -> int | Reply:
        """Return the region whose page is requested, or the response to any other request."""
        match = ROUTE.fullmatch(request.path)
        if not match:
            return self.answer_other(request)
        if refusal := find_mistake(request):
            return refusal
        region_id = int(match[1])
        return refuse(404, "Region not found!") if region_pages(region_id) is None else region_id

    def answer_other(self, request: Request) -> Reply:
        """Return the response to a request for anything but orders."""
        counts = {"requests": self.requests, "pages": self.pages, "most_in_flight": self.most_in_flight}
        answers = {
            "/_stats": counts,
            "/status": make_status(self.clock()),
            "/incursions": make_incursions(self.clock()),
        }
        answer = answers.get(request.path.rstrip("/"))
        return Reply(200, JSON, msgspec.json.encode(answer)) if answer is not None else refuse(404, "Not found")

    def give_page(self, request: Request, generation: Generation) -> Reply:
        """Return a page of a snapshot, or an error response."""
        page, pages = int(request.query.get("page", "1")), generation.pages
        if page > len(pages):
            return refuse(404, "Requested page does not exist!")
        headers = JSON | {
            "Cache-Control": "public",
            "ETag": f'W/"{generation.modified}-{page}"',
            "Expires": formatdate(generation.modified + self.every, usegmt=True),
            "Last-Modified": formatdate(generation.modified, usegmt=True),
            "Vary": "Accept-Encoding",
            "X-Pages": str(len(pages)),
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Reply(200, headers | {"Content-Encoding": "gzip"}, pages[page - 1])
        return Reply(200, headers, gzip.decompress(pages[page - 1]))

    def count(self, request: Request, status: int) -> dict[str, str]:
        """Count a request, and return the headers with ESI's limits."""
        if request.path == "/_stats":
            return {}
        now = self.clock()
        self.requests[f"{request.method} {status}"] += 1
        if request.method == "GET":
            self.pages[request.query.get("page", "1")] += 1
        if request.path.startswith("/markets/"):  # other routes have other token buckets
            self.tokens.add(now, COSTS.get(status // 100, 0))
        return {
            "Date": formatdate(now, usegmt=True),
            "X-Ratelimit-Group": "market-order",
            "X-Ratelimit-Limit": f"{TOKENS}/{WINDOW_SECONDS // 60}m",
            "X-Ratelimit-Remaining": str(max(0, TOKENS - self.tokens.used)),
            "X-Ratelimit-Used": str(COSTS.get(status // 100, 0)),
        }


def make_status(now: float) -> dict[str, int | str]:
    """Return the game server's status: players vary over a day, and it restarts at 11:05 UTC."""
    started = datetime.fromtimestamp((now - 39_900) // 86_400 * 86_400 + 39_900, UTC)
    players = round(24_000 + 8_000 * math.sin(2 * math.pi * now / 86_400))
    return {"players": players, "server_version": "3000000", "start_time": f"{started:%Y-%m-%dT%H:%M:%SZ}"}


def make_incursions(now: float) -> list[dict[str, int | str | bool | float | list[int]]]:
    """Return the incursions of a day: one to four, with a handful of systems each."""
    day = int(now // 86_400)
    return [
        {
            "constellation_id": 20_000_001 + (day + number) % 700,
            "faction_id": 500_019,
            "has_boss": number == 0,
            "infested_solar_systems": [30_000_001 + 10 * (day + number) + system for system in range(5 + number)],
            "influence": 0.25 * number,
            "staging_solar_system_id": 30_000_001 + 10 * (day + number),
            "state": "established" if number else "mobilizing",
            "type": "Incursion",
        }
        for number in range(1 + day % 4)
    ]


def find_mistake(request: Request) -> Reply | None:
    """Return the error response to an invalid request, None if it is valid."""
    page = request.query.get("page", "1")
    if request.method not in {"GET", "HEAD"}:
        return refuse(405, "Method not allowed")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", request.headers.get("x-compatibility-date", "")):
        return refuse(400, "X-Compatibility-Date is required, as YYYY-MM-DD")
    if request.query.get("order_type") not in {"buy", "sell", "all"}:
        return refuse(400, "order_type is required: buy, sell or all")
    if not re.fullmatch(r"[1-9]\d{0,8}", page):
        return refuse(400, f"page {page!r} is not a positive integer")
    return None


def refuse(status: int, error: str, headers: dict[str, str] | None = None) -> Reply:
    """Return an error response in ESI's format."""
    return Reply(status, JSON | (headers or {}), msgspec.json.encode({"error": error}))
