"""The market stand-in's HTTP/1.1 server, on asyncio's streams: a web framework needs more CPU time for a request."""

import asyncio
import signal
from functools import partial
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import msgspec

from deployments.local.market.market import Market, Reply, Request


async def run(market: Market, port: int) -> None:
    """Serve a market on a port of 127.0.0.1 until SIGINT or SIGTERM; raise OSError if the port is taken."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await asyncio.start_server(partial(answer, market), "127.0.0.1", port)
    ahead = asyncio.create_task(market.prepare_ahead())
    print(f"market stand-in on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
    await stop.wait()
    ahead.cancel()
    market.close()


async def answer(market: Market, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of a connection, one at a time, until it is closed."""
    try:
        while True:
            request = parse_head(await reader.readuntil(b"\r\n\r\n"))
            if (length := request.headers.get("content-length", "")).isdigit():
                request = msgspec.structs.replace(request, body=await reader.readexactly(int(length)))
            market.in_flight += 1
            market.most_in_flight = max(market.most_in_flight, market.in_flight)
            try:
                reply = await find_reply(market, request)
                await asyncio.sleep(market.latency_seconds)
            finally:
                market.in_flight -= 1
            writer.write(format_reply(request, reply, market.count(request, reply.status)))
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass  # the client has closed the connection, or does not speak HTTP
    finally:
        writer.close()


async def find_reply(market: Market, request: Request) -> Reply:
    """Return the response to a request, once its page is prepared."""
    region_id = market.find_region(request)
    if isinstance(region_id, Reply):
        return region_id
    return market.give_page(request, await asyncio.wrap_future(market.prepare(region_id, market.index)))


def parse_head(head: bytes) -> Request:
    """Parse a request's first line and headers; if they are invalid, return a request that is refused."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target = ([*first.split(" "), "", ""])[:2]
    parts = urlsplit(target)
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    return Request(method, parts.path, dict(parse_qsl(parts.query)), headers)


def format_reply(request: Request, reply: Reply, counts: dict[str, str]) -> bytes:
    """Return a response as bytes, without a body for HEAD and 304."""
    headers = counts | reply.headers | {"Content-Length": str(len(reply.body))}
    phrase = HTTPStatus(reply.status).phrase if reply.status in set(HTTPStatus) else "Unknown"
    lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    has_body = request.method != "HEAD" and reply.status != HTTPStatus.NOT_MODIFIED
    return "\r\n".join(lines).encode("latin-1") + (reply.body if has_body else b"")
