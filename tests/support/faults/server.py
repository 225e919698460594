"""Proxies before a Prefect server: one loses answers of calls that it carries out; one holds up or refuses reports.

A report is a call that only shows a run: artifacts, labels, tags, logs, a look at events.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

from tests.support.faults.loop import serve_from_thread
from tests.support.faults.plan import Plan
from tests.support.faults.store import content_length

PIECE_BYTES = 65_536


async def answer(api_port: int, plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass one connection on, and breaks it before the answer where the plan says so."""
    upstream, server = await asyncio.open_connection("127.0.0.1", api_port)
    back = asyncio.ensure_future(pipe(upstream, writer))
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"websocket" in head.lower():
                server.write(head)
                await pipe(reader, server)
                return
            body = await reader.readexactly(content_length(head))
            if plan.next_fault(find_state(head, body)):
                back.cancel()
                await asyncio.wait([back])
                server.write(head + body)
                await upstream.readuntil(b"\r\n\r\n")
                return
            server.write(head + body)
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # one of the two has closed, or the proxy ends
    finally:
        back.cancel()
        writer.close()
        server.close()


def find_state(head: bytes, body: bytes) -> str:
    """Return the type of the state that a flow run is to be put in by a call, or `other`."""
    line = head.split(b"\r\n", 1)[0]
    if b"/flow_runs/" not in line or b"/set_state" not in line:
        return "other"
    return body.split(b'"type":', 1)[1].split(b'"')[1].decode()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends."""
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()


@contextmanager
def serve_forgetful(api_url: str, plan: Plan) -> Iterator[str]:
    """Serve the proxy, and return the API's address through it."""
    port = urlsplit(api_url).port
    assert port
    with serve_from_thread(lambda reader, writer: answer(port, plan, reader, writer)) as own_port:
        yield f"http://127.0.0.1:{own_port}/api"


REPORTS = re.compile(rb"(POST|PATCH) /api/(artifacts|events|logs)|PATCH /api/flow_runs/[^/ ]+/labels ")
TAGS = re.compile(rb"PATCH /api/flow_runs/.*\r\n\r\n.*\"tags\"", re.DOTALL)
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


class Reports:
    """What becomes of reports: they pass, are held up until they may pass, or are refused with 503."""

    def __init__(self, mode: Literal["pass", "hold", "refuse"]) -> None:
        self.mode: Literal["pass", "hold", "refuse"] = mode
        self.stopped: list[str] = []  # the request lines of those that were held up or refused


async def stop_reports(
    api_port: int, reports: Reports, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass one connection on, but for its reports."""
    upstream, server = await asyncio.open_connection("127.0.0.1", api_port)
    back = asyncio.ensure_future(pipe(upstream, writer))
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(content_length(head))
            is_report = REPORTS.match(head) or TAGS.match(head + body)
            if is_report and reports.mode != "pass":
                reports.stopped.append(head.split(b" HTTP", 1)[0].decode())
                if reports.mode == "refuse":
                    writer.write(BUSY)
                    continue
                while reports.mode == "hold":  # noqa: ASYNC110 (another thread lets them pass)
                    await asyncio.sleep(0.01)
            server.write(head + body)
            if b"websocket" in head.lower():
                await pipe(reader, server)
                return
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # one of the two has closed, or the proxy ends
    finally:
        back.cancel()
        writer.close()
        server.close()


@contextmanager
def serve_stopping(api_url: str, reports: Reports) -> Iterator[str]:
    """Serve the proxy that stops reports, and yield the API's address through it."""
    port = urlsplit(api_url).port
    assert port
    with serve_from_thread(lambda reader, writer: stop_reports(port, reports, reader, writer)) as own_port:
        yield f"http://127.0.0.1:{own_port}/api"
