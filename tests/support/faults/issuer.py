"""Who issues credentials, to a container or to a machine: a real server, which may answer wrongly for a while."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROLE = b"""<AssumeRoleResponse><AssumeRoleResult><Credentials>
<AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


class Issuer(ThreadingHTTPServer):
    """A container's endpoint for credentials, and a machine's metadata service."""

    def __init__(self, plan: list[tuple[int, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = plan  # statuses and bodies of what is answered before credentials are
        self.issued = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers a request for credentials."""

    server: Issuer
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_PUT(self) -> None:
        """Give the token with which a metadata service is asked."""
        self.answer(200, b"token")

    def do_GET(self) -> None:
        """Give what is planned, or credentials; a metadata service is asked for the role's name first."""
        if self.path.endswith("security-credentials/") and (not self.server.plan or self.server.plan[0][0] == 200):
            self.answer(200, b"role")
        elif self.server.plan:
            self.answer(*self.server.plan.pop(0))
        else:
            self.server.issued += 1
            self.answer(200, format_credentials(f"AKIA{self.server.issued}"))

    def do_POST(self) -> None:
        """Give what is planned, or a role's credentials, in XML as STS does."""
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.plan:
            self.answer(*self.server.plan.pop(0))
        else:
            self.server.issued += 1
            self.answer(200, ROLE)

    def answer(self, status: int, body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


def format_credentials(key: str, seconds: float = 36_000) -> bytes:
    """Return credentials that last so long, as both kinds of issuer give them."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    keys = {"AccessKeyId": key, "SecretAccessKey": "secret", "Token": "token"}
    return json.dumps(keys | {"Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}"}).encode()


@contextmanager
def serve_issuer(plan: list[tuple[int, bytes]]) -> Iterator[Issuer]:
    """Serve an issuer."""
    with Issuer(plan) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield server
        finally:
            server.shutdown()
