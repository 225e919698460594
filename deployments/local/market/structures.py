"""The stand-in's player structures, and the endpoint that issues access tokens for them."""

import re
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import msgspec

TOKEN_ROUTE = "/v2/oauth/token"  # noqa: S105 (no secret)
ROUTE = re.compile(r"/markets/structures/(\d+)/?")
REFRESH_TOKEN = "made-up-refresh-token"  # noqa: S105 (the only valid one)
OPEN = range(1_000_000_000_001, 1_000_000_010_000)  # the last four digits are the number of pages
LOCKED = range(1_000_000_010_000, 1_000_000_020_000)  # the character has no docking access
SYSTEM_ID = 30_000_240  # of the solar system where they lie


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
        if structure_id in LOCKED:
            return 403, "Market access denied"
        return None if structure_id in OPEN else (404, "Structure not found")

    def expire_all(self) -> None:
        """Expire all access tokens."""
        self._ends.clear()
