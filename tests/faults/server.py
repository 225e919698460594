"""A proxy before a Prefect server, which loses answers: what was asked for is done, but who asked is not told."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.faults.loop import serve_from_thread
from tests.faults.plan import Plan
from tests.faults.store import content_length

PIECE_BYTES = 65_536


async def answer(api_port: int, plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes one connection on, and breaks it before the answer where the plan says so."""
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
    """Gives the type of the state that a flow run is to be put in by a call, or `other`."""
    line = head.split(b"\r\n", 1)[0]
    if b"/flow_runs/" not in line or b"/set_state" not in line:
        return "other"
    return body.split(b'"type":', 1)[1].split(b'"')[1].decode()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes on what comes until it ends."""
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()


@contextmanager
def serve_forgetful(api_url: str, plan: Plan) -> Iterator[str]:
    """Serves the proxy, and gives the API's address through it."""
    port = urlsplit(api_url).port
    assert port
    with serve_from_thread(lambda reader, writer: answer(port, plan, reader, writer)) as own_port:
        yield f"http://127.0.0.1:{own_port}/api"
