"""A proxy before the DynamoDB-compatible store, which misbehaves by plan."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from tests.faults.loop import serve_from_thread
from tests.faults.plan import Plan

ERRORS = {
    "throughput exceeded": (400, "ProvisionedThroughputExceededException"),
    "throttled": (400, "ThrottlingException"),
    "500": (500, "InternalServerError"),
    "denied": (400, "AccessDeniedException"),
}
UNPROCESSED = {"some unprocessed": 0.5, "most unprocessed": 0.96, "all unprocessed": 1.0}  # share
WIRES = {"reset", "answer lost", "answer cut", "HTML"}
# A body whose length no header tells.
HTML_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
HTML = HTML_HEAD + b"6\r\n<html>\r\n0\r\n\r\n"
KINDS = sorted({*ERRORS, *UNPROCESSED, *WIRES})


async def answer(store_port: int, plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes one connection's calls on, and spoils those that the plan says."""
    upstream, store = await asyncio.open_connection("127.0.0.1", store_port)
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(content_length(head))
            operation = find_operation(head)
            kind = plan.next_fault(operation)
            if kind in UNPROCESSED and operation != "BatchWriteItem":
                kind = "throttled"
            if kind in ERRORS:
                writer.write(format_error(*ERRORS[kind]))
            elif kind == "HTML":
                writer.write(HTML)
            elif kind == "reset":
                writer.transport.abort()
                return
            else:
                left: dict[str, Any] = {}
                if kind in UNPROCESSED:
                    head, body, left = hold_back(head, body, UNPROCESSED[kind])
                reply = await forward(upstream, store, head, body) if body else format_answer(200, {})
                if kind == "answer lost":
                    writer.transport.abort()
                    return
                if kind == "answer cut":
                    writer.write(reply[: len(reply) - 5])
                    return
                writer.write(merge(reply, left) if left else reply)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # one of the two has closed, or the server ends
    finally:
        writer.close()
        store.close()


def content_length(head: bytes) -> int:
    """Gives the length of the body that follows."""
    lines = (line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return next((int(value) for name, value in lines if name.lower() == b"content-length"), 0)


def find_operation(head: bytes) -> str:
    """Gives the operation that is called."""
    lines = (line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    target = next((value for name, value in lines if name.lower() == b"x-amz-target"), b"")
    return target.decode().strip().rsplit(".", 1)[-1]


async def forward(upstream: asyncio.StreamReader, store: asyncio.StreamWriter, head: bytes, body: bytes) -> bytes:
    """Sends a call to the store and gives its answer."""
    store.write(head + body)
    reply_head = await upstream.readuntil(b"\r\n\r\n")
    return reply_head + await upstream.readexactly(content_length(reply_head))


def hold_back(head: bytes, body: bytes, share: float) -> tuple[bytes, bytes, dict[str, Any]]:
    """Takes a share of a batch's writes out; gives what is left of the call, nothing if all are out, and them."""
    call = json.loads(body)
    [(name, writes)] = call["RequestItems"].items()
    kept = len(writes) - max(1, round(len(writes) * share))
    held = {name: writes[kept:]}
    if not kept:
        return head, b"", held
    call["RequestItems"] = {name: writes[:kept]}
    smaller = json.dumps(call).encode()
    lines = [
        b"Content-Length: %d" % len(smaller) if line.lower().startswith(b"content-length") else line
        for line in head.split(b"\r\n")
    ]
    return b"\r\n".join(lines), smaller, held


def merge(reply: bytes, left: dict[str, Any]) -> bytes:
    """Adds the writes that were held back to an answer."""
    _head, body = reply.split(b"\r\n\r\n", 1)
    return format_answer(200, json.loads(body) | {"UnprocessedItems": left})


def format_error(status: int, code: str) -> bytes:
    """Gives an error as DynamoDB words it."""
    return format_answer(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "planned"})


def format_answer(status: int, body: dict[str, Any]) -> bytes:
    """Gives an answer as it goes over the wire."""
    encoded = json.dumps(body).encode()
    phrase = HTTPStatus(status).phrase
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(encoded)}"
    return f"{head}\r\n\r\n".encode() + encoded


@contextmanager
def serve_faulty_store(store_url: str, plan: Plan) -> Iterator[str]:
    """Serves the proxy, and gives its address."""
    store_port = urlsplit(store_url).port
    assert store_port
    with serve_from_thread(lambda reader, writer: answer(store_port, plan, reader, writer)) as port:
        yield f"http://127.0.0.1:{port}"
