"""A Prefect server that misbehaves: it loses answers of calls that it carries out, stops reports, or answers otherwise.

A report is a call that only shows a run: artifacts, labels, tags, logs, a look at events.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.support.faults.plan import Plan
from tests.support.faults.proxy import END, Forward, HangUpError, serve_proxy
from tests.support.servers import finish_reports

Change = Callable[[str, httpx.Response], httpx.Response]  # of a request, such as "GET /flow_runs/…", and its answer
REPORTS = re.compile(rb"(POST|PATCH) /api/(artifacts|events|logs)|PATCH /api/flow_runs/[^/ ]+/labels ")
TAGS = re.compile(rb"PATCH /api/flow_runs/.*\r\n\r\n.*\"tags\"", re.DOTALL)
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serve_forgetful(api_url: str, plan: Plan) -> Iterator[str]:
    """Serve an API that closes the connection in place of the answers that the plan says; yield its address."""

    async def answer(head: bytes, body: bytes, forward: Forward) -> bytes:
        reply = await forward(head, body)
        if plan.next_fault(find_state(head, body)):
            raise HangUpError
        return reply

    with serve_proxy(api_url, answer) as url:
        yield url
        finish_reports()


def find_state(head: bytes, body: bytes) -> str:
    """Return the type of the state that a flow run is to be put in by a call, or `other`."""
    line = head.split(b"\r\n", 1)[0]
    if b"/flow_runs/" not in line or b"/set_state" not in line:
        return "other"
    return body.split(b'"type":', 1)[1].split(b'"')[1].decode()


class Reports:
    """What becomes of reports: they pass, are held up until they may pass, or are refused with 503."""

    def __init__(self, mode: Literal["pass", "hold", "refuse"]) -> None:
        self.mode: Literal["pass", "hold", "refuse"] = mode
        self.stopped: list[str] = []  # the request lines of those that were held up or refused


@contextmanager
def serve_stopping(api_url: str, reports: Reports) -> Iterator[str]:
    """Serve an API that stops reports; yield its address."""

    async def answer(head: bytes, body: bytes, forward: Forward) -> bytes:
        if reports.mode != "pass" and (REPORTS.match(head) or TAGS.match(head + body)):
            reports.stopped.append(head.split(b" HTTP", 1)[0].decode())
            if reports.mode == "refuse":
                return BUSY
            while reports.mode == "hold":  # noqa: ASYNC110 (another thread lets them pass)
                await asyncio.sleep(0.01)
        return await forward(head, body)

    with serve_proxy(api_url, answer) as url:
        yield url


@contextmanager
def serve_changed(api_url: str, change: Change) -> Iterator[str]:
    """Serve an API with its answers changed, and have Prefect's clients of this process use it; yield its address."""

    async def answer(head: bytes, body: bytes, forward: Forward) -> bytes:
        method, path, _version = head.split(b"\r\n", 1)[0].decode().split()
        reply = parse_answer(await forward(head, body))
        return format_answer(await asyncio.to_thread(change, f"{method} {path.removeprefix('/api')}", reply))

    with serve_proxy(api_url, answer) as url, temporary_settings({PREFECT_API_URL: url}):
        yield url
        finish_reports()


def parse_answer(answer: bytes) -> httpx.Response:
    """Return an answer as httpx has it."""
    head, content = answer.split(END, 1)
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, value in (line.split(":", 1) for line in lines)]
    return httpx.Response(int(line.split()[1]), headers=headers, content=content)


def format_answer(reply: httpx.Response) -> bytes:
    """Return an answer as it goes over the wire."""
    reply.headers["Content-Length"] = str(len(reply.content))
    headers = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    return f"HTTP/1.1 {reply.status_code} {reply.reason_phrase}\r\n{headers}\r\n".encode("latin-1") + reply.content
