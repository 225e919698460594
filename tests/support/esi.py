"""ESI's market with what only tests ask of it: structures behind tokens, enforced limits, conditional requests."""

import gzip
import re
import secrets
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs

import msgspec

from deployments.local.market.market import (
    JSON,
    TOKENS,
    WINDOW_SECONDS,
    Generation,
    Limit,
    Market,
    Reply,
    Request,
    find_mistake,
    refuse,
)
from deployments.local.market.places import OPEN_STRUCTURES

ERROR_LIMIT, ERROR_SECONDS = 100, 60
TOKEN_ROUTE = "/v2/oauth/token"
ROUTE = re.compile(r"/markets/structures/(\d+)/?")
REFRESH_TOKEN = "made-up-refresh-token"  # the only valid one
LOCKED_STRUCTURES = range(1_000_000_010_000, 1_000_000_020_000)  # the character has no docking access


@dataclass
class Sso:
    """An issuer of access tokens."""

    access_seconds: float = 1199.0  # how long a token is valid
    refresh_token: str = REFRESH_TOKEN
    given: int = 0  # access tokens issued so far
    _ends: dict[str, float] = field(default_factory=dict)  # expiry (unix time) by access token

    def answer(self, body: bytes, now: float) -> tuple[int, bytes]:
        """Return status and body of the response to a form that requests an access token."""
        form = {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}
        if form.get("grant_type") != "refresh_token":
            return 400, b'{"error":"unsupported_grant_type"}'
        if form.get("refresh_token") != self.refresh_token:
            return 400, b'{"error":"invalid_grant","error_description":"Invalid refresh token."}'
        token = f"made-up-access-{secrets.token_hex(8)}"
        self.given += 1
        self._ends[token] = now + self.access_seconds
        answer = {"access_token": token, "expires_in": self.access_seconds, "token_type": "Bearer"}
        return 200, msgspec.json.encode(answer | {"refresh_token": self.refresh_token})

    def refuse(self, structure_id: int, authorization: str, now: float) -> tuple[int, str] | None:
        """Return status and error if a structure's market is refused, else None."""
        ends = self._ends.get(authorization.removeprefix("Bearer "))
        if ends is None or not authorization.startswith("Bearer "):
            return 401, "Unauthorized - Invalid token"
        if now >= ends:
            return 401, "token is expired"
        if structure_id in LOCKED_STRUCTURES:
            return 403, "Market access denied"
        return None if structure_id in OPEN_STRUCTURES else (404, "Structure not found")

    def expire_all(self) -> None:
        """Expire all access tokens."""
        self._ends.clear()


@dataclass(eq=False)
class EsiMarket(Market):
    """The market stand-in, and what only tests ask of it."""

    enforce_limit: bool = field(default=False, kw_only=True)  # respond with 420 and 429 beyond ESI's limits

    def __post_init__(self) -> None:
        super().__post_init__()
        self.errors = Limit(ERROR_SECONDS)
        self.sso = Sso()

    def reset_counts(self) -> None:
        """Reset the counts of requests."""
        self.requests.clear()
        self.pages.clear()
        self.most_in_flight = self.in_flight

    def find_region(self, request: Request) -> int | Reply:
        """Return the region or structure whose page is requested, or the response to any other request."""
        structure = ROUTE.fullmatch(request.path)
        found = self.find_structure(request, int(structure[1])) if structure else super().find_region(request)
        return found if isinstance(found, Reply) else self.ban() or found

    def find_structure(self, request: Request, structure_id: int) -> int | Reply:
        """Return a structure whose page is requested, or the response to an invalid or unauthorised request."""
        if refusal := find_mistake(msgspec.structs.replace(request, query=request.query | {"order_type": "all"})):
            return refusal
        denial = self.sso.refuse(structure_id, request.headers.get("authorization", ""), self.clock())
        return refuse(*denial) if denial else structure_id

    def ban(self) -> Reply | None:
        """Return the 420 or 429 response if a limit is exceeded, else None."""
        if self.enforce_limit and self.errors.used >= ERROR_LIMIT:
            return refuse(420, "This software has exceeded the error limit for ESI.")
        if self.enforce_limit and self.tokens.used >= TOKENS:
            seconds = max(1, round(self.tokens.events[0][0] + WINDOW_SECONDS - self.clock()))
            return refuse(429, "Rate limit exceeded", {"Retry-After": str(seconds)})
        return None

    def answer_other(self, request: Request) -> Reply:
        """Return the response to a request for anything but orders."""
        if request.path == TOKEN_ROUTE and request.method == "POST":
            status, body = self.sso.answer(request.body, self.clock())
            return Reply(status, JSON, body)
        return super().answer_other(request)

    def count(self, request: Request, status: int) -> dict[str, str]:
        """Count a request, and return the headers with ESI's limits, also the older one."""
        now = self.clock()
        self.errors.add(now, int(status >= 400))
        return super().count(request, status) | {
            "X-Esi-Error-Limit-Remain": str(max(0, ERROR_LIMIT - self.errors.used)),
            "X-Esi-Error-Limit-Reset": str(int(ERROR_SECONDS - now % ERROR_SECONDS)),
        }

    def give_page(self, request: Request, generation: Generation) -> Reply:
        """Return a page of a snapshot, 304 if the client already has it, or an error response."""
        if "type_id" in request.query:
            pages = filter_type(generation.pages, request.query["type_id"], request.query["order_type"])
            generation = msgspec.structs.replace(generation, pages=pages)
        reply = super().give_page(request, generation)
        if reply.status == 200 and is_unchanged(request, generation.modified, reply.headers["ETag"]):
            return Reply(304, {name: value for name, value in reply.headers.items() if name != "Content-Encoding"})
        return reply


def is_unchanged(request: Request, modified: int, etag: str) -> bool:
    """Return whether the client already has the page (RFC 9110, 13.1)."""
    if known := request.headers.get("if-none-match"):
        return known == "*" or etag.removeprefix("W/") in known
    try:
        since = parsedate_to_datetime(request.headers.get("if-modified-since", ""))
    except ValueError:
        return False
    return since.timestamp() >= modified


def filter_type(pages: list[bytes], type_id: str, order_type: str) -> list[bytes]:
    """Return the orders of one item type as one page; `order_type` has an effect only here."""
    orders = [order for page in pages for order in msgspec.json.decode(gzip.decompress(page))]
    sides = {"buy": {True}, "sell": {False}}.get(order_type, {True, False})
    chosen = [order for order in orders if str(order["type_id"]) == type_id and order["is_buy_order"] in sides]
    return [gzip.compress(msgspec.json.encode(chosen))]
