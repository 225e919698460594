"""A proxy in front of a server of this machine, which answers each request as a function says."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.support.faults.loop import serve_from_thread

END = b"\r\n\r\n"  # of a head
PIECE_BYTES = 65_536
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
ENCODING = re.compile(rb"(?i)\r\naccept-encoding:[^\r]*")
Forward = Callable[[bytes, bytes], Coroutine[Any, Any, bytes]]  # gives a head and a body to the server: its answer
Answer = Callable[[bytes, bytes, Forward], Coroutine[Any, Any, bytes]]  # to a request's head and body


class HangUpError(Exception):
    """Closes a connection after a piece of an answer, or resets it."""

    def __init__(self, piece: bytes = b"", *, reset: bool = False) -> None:
        self.piece, self.reset = piece, reset


@contextmanager
def serve_proxy(url: str, answer: Answer) -> Iterator[str]:
    """Serve the proxy of a server, and return its address."""
    server = urlsplit(url)
    assert server.port
    server_port = server.port
    with serve_from_thread(lambda reader, writer: serve(server_port, answer, reader, writer)) as port:
        yield f"http://127.0.0.1:{port}{server.path}"


async def serve(port: int, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's requests; a websocket is passed on as it is."""
    upstream, server = await asyncio.open_connection("127.0.0.1", port)

    async def forward(head: bytes, body: bytes) -> bytes:
        server.write(ENCODING.sub(b"", head) + body)  # so that answers have a length
        return b"".join(await read_message(upstream))

    try:
        while True:
            head, body = await read_message(reader)
            if b"websocket" in head.lower():
                server.write(head)
                await pass_on(reader, server, upstream, writer)
                return
            writer.write(await answer(head, body, forward))
            await writer.drain()
    except HangUpError as error:
        writer.write(error.piece)
        if error.reset:
            writer.transport.abort()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # one of the two has closed, or the proxy ends
    finally:
        writer.close()
        server.close()


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a request or an answer: head and body."""
    head = await reader.readuntil(END)
    found = LENGTH.search(head)
    return head, await reader.readexactly(int(found[1]) if found else 0)


async def pass_on(
    reader: asyncio.StreamReader,
    server: asyncio.StreamWriter,
    upstream: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Pass on what comes from either side until one of them closes, for which the other may be waiting."""
    ways = [asyncio.ensure_future(way) for way in (pipe(reader, server), pipe(upstream, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends."""
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
