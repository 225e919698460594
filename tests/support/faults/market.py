"""The market stand-in, misbehaving by plan: a real server, which sends over its socket what ESI must not."""

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec

from deployments.local.market.market import Generation, Market, Reply, Request, refuse
from deployments.local.market.server import find_reply, format_reply, parse_head
from tests.support.faults.loop import serve_from_thread
from tests.support.faults.plan import Plan
from tests.support.worlds import Clock


class Sent(NamedTuple):
    """What goes over the wire, and what comes after it."""

    data: bytes
    then: Literal["keep", "close", "reset", "drip"] = "keep"


def status(code: int, headers: dict[str, str] | None = None) -> Callable[[Market, Reply], Reply]:
    """Return a fault that is no more than a status."""
    return lambda _market, _reply: refuse(code, "planned", headers)


def header(**headers: str) -> Callable[[Market, Reply], Reply]:
    """Return a fault that is a wrong header; an empty one is left out."""
    wanted = {name.replace("_", "-"): value for name, value in headers.items()}

    def change(_market: Market, reply: Reply) -> Reply:
        kept = {name: value for name, value in reply.headers.items() if name not in wanted}
        return Reply(reply.status, kept | {name: value for name, value in wanted.items() if value}, reply.body)

    return change


def body(change: Callable[[bytes], bytes]) -> Callable[[Market, Reply], Reply]:
    """Return a fault that is a wrong body, as it is sent."""
    return lambda _market, reply: Reply(reply.status, reply.headers, change(reply.body))


def orders(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Market, Reply], Reply]:
    """Return a fault that is in a page's orders."""

    def mangle(packed: bytes) -> bytes:
        rows = msgspec.json.decode(gzip.decompress(packed))
        changed = change(rows)
        return gzip.compress(msgspec.json.encode(rows if changed is None else changed), 1)

    return body(mangle)


def dated(name: str, seconds: float) -> Callable[[Market, Reply], Reply]:
    """Return a fault that is a wrong date, so far ahead."""
    return lambda market, reply: header(**{name: formatdate(market.clock() + seconds, usegmt=True)})(market, reply)


@cache
def bomb() -> bytes:
    """Return 64 MiB of zeros, gzipped."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()


def first(rows: list[dict[str, Any]], **values: object) -> None:
    """Change a page's first order; a value of None takes it out."""
    for row in rows[:1]:
        row.update(values)
        for name in [name for name, value in row.items() if value is None]:
            del row[name]


REPLIES: dict[str, Callable[[Market, Reply], Reply]] = {
    "420": status(420, {"X-Esi-Error-Limit-Reset": "0"}),
    "429": status(429, {"Retry-After": "0"}),
    "429 with a date": lambda market, _reply: refuse(
        429, "planned", {"Retry-After": formatdate(market.clock(), usegmt=True)}
    ),
    **{str(code): status(code) for code in (304, 405, 408, 421, 425, 501)},
    "204": lambda _market, _reply: Reply(204, {}),
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "504": status(504),
    "520": status(520),
    "400": status(400),
    "403": status(403),
    "404": status(404),
    "redirect": status(302, {"Location": "http://127.0.0.2:1/"}),
    "broken gzip": body(lambda packed: packed[:12] + bytes(8) + packed[20:]),
    "no gzip": body(lambda _packed: b"[]"),
    "bomb": body(lambda _packed: bomb()),
    "HTML": header(Content_Type="text/html", Content_Encoding=""),
    "an object": orders(lambda _rows: {"orders": []}),
    "error as 200": orders(lambda _rows: {"error": "planned"}),
    "missing field": orders(lambda rows: first(rows, price=None)),
    "negative price": orders(lambda rows: first(rows, price=-1)),
    "NaN": body(lambda packed: gzip.compress(gzip.decompress(packed).replace(b'"price":', b'"price":NaN,"was":', 1))),
    "twice on a page": orders(lambda rows: rows.extend(rows[:3])),
    "no X-Pages": header(X_Pages=""),
    "garbled X-Pages": header(X_Pages="many"),
    "X-Pages of a million": header(X_Pages="1000000"),
    "other X-Pages": lambda market, reply: header(X_Pages=str(int(reply.headers["X-Pages"]) + 1))(market, reply),
    "no Last-Modified": header(Last_Modified=""),
    "clock ahead": dated("Date", 86_400),
    "clock behind": dated("Date", -86_400),
    "Expires ahead": dated("Expires", 82_800),
    "Last-Modified ahead": dated("Last_Modified", 82_800),
    "no headers": header(X_Pages="", Last_Modified="", Date=""),
}
WIRES: dict[str, Callable[[bytes], Sent]] = {
    "reset": lambda _data: Sent(b"", "reset"),
    "reset in the body": lambda data: Sent(data[: len(data) - 40], "reset"),
    "closed": lambda _data: Sent(b"", "close"),
    "truncated": lambda data: Sent(data[: len(data) - 40], "close"),
    "stalled": lambda data: Sent(data, "drip"),
    "short Content-Length": lambda data: Sent(resize(data, -20), "close"),
    "long Content-Length": lambda data: Sent(resize(data, 20), "close"),
}
MOVES = {"moves on", "stale", "twice on two pages"}
KINDS = sorted({*REPLIES, *WIRES, *MOVES})
LASTING = {
    *("400", "403", "404", "405", "redirect", "an object", "missing field", "negative price", "NaN"),
    *("garbled X-Pages", "X-Pages of a million", "no Last-Modified"),
}  # which no run tries again


def resize(data: bytes, more: int) -> bytes:
    """Change the length that an answer says it has."""
    head, body = data.split(b"\r\n\r\n", 1)
    lines = [
        b"Content-Length: %d" % max(0, int(line.split(b":")[1]) + more) if line.startswith(b"Content-Length") else line
        for line in head.split(b"\r\n")
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def answer(market: Market, plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's requests as the plan says."""
    try:
        while True:
            request = parse_head(await reader.readuntil(b"\r\n\r\n"))
            kind = plan.next_fault(request.query.get("page", "HEAD"))
            reply = await choose_reply(market, request, kind)
            data = format_reply(request, reply, market.count(request, reply.status))
            sent = WIRES[kind](data) if kind in WIRES else Sent(data)
            await send(writer, sent)
            if sent.then != "keep":
                return
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # the other side has closed, or the server ends
    finally:
        writer.close()


async def choose_reply(market: Market, request: Request, kind: str) -> Reply:
    """Return the true reply, changed as a fault says."""
    if kind == "moves on":
        assert isinstance(market.clock, Clock)
        market.clock.now += market.every
    if kind == "stale":
        region_id = market.find_region(request)
        assert isinstance(region_id, int)
        generation: Generation = await asyncio.wrap_future(market.prepare(region_id, market.index - 1))
        return market.give_page(request, generation)
    reply = await find_reply(market, request)
    if reply.status != 200:
        return reply
    if kind == "twice on two pages":
        page = msgspec.structs.replace(request, query=request.query | {"page": "1"})
        more = msgspec.json.decode(gzip.decompress((await find_reply(market, page)).body))[:3]
        return orders(lambda rows: rows.extend(more))(market, reply)
    if kind in REPLIES and not (request.method == "HEAD" and kind == "HTML"):
        return REPLIES[kind](market, reply)
    return reply


async def send(writer: asyncio.StreamWriter, sent: Sent) -> None:
    """Send an answer, whole or in drops, and breaks the connection if that is next."""
    if sent.then == "drip":
        head_bytes = sent.data.index(b"\r\n\r\n") + 4
        writer.write(sent.data[:head_bytes])
        for start in range(head_bytes, len(sent.data)):
            writer.write(sent.data[start : start + 1])
            await writer.drain()
            await asyncio.sleep(0.1)
        return
    writer.write(sent.data)
    await writer.drain()
    if sent.then == "reset":
        await asyncio.sleep(0.01)  # what was sent is to arrive
        writer.transport.abort()


@contextmanager
def serve_faulty(market: Market, plan: Plan) -> Iterator[str]:
    """Serve a market that misbehaves, and return its address."""
    bomb()  # made here: a third of a second in the server's loop would hold up its other connections
    with serve_from_thread(lambda reader, writer: answer(market, plan, reader, writer)) as port:
        yield f"http://127.0.0.1:{port}"
