"""A proxy before the DynamoDB-compatible store, which misbehaves by plan, and gives no more than its capacity."""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

from tests.support.faults.plan import Plan
from tests.support.faults.proxy import Forward, HangUpError, serve_proxy

ERRORS = {
    "throughput exceeded": (400, "ProvisionedThroughputExceededException"),
    "throttled": (400, "ThrottlingException"),
    "500": (500, "InternalServerError"),
    "denied": (400, "AccessDeniedException"),
}
UNPROCESSED = {"some unprocessed": 0.5, "most unprocessed": 0.96, "all unprocessed": 1.0}  # share
WIRES = {"reset", "answer lost", "answer cut", "HTML"}
# A body whose length no header states.
HTML_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
HTML = HTML_HEAD + b"6\r\n<html>\r\n0\r\n\r\n"
KINDS = sorted({*ERRORS, *UNPROCESSED, *WIRES})
SPENT = {
    "GetItem": "reads",
    "BatchGetItem": "reads",
    "Query": "reads",
    "Scan": "reads",
    "PutItem": "writes",
    "BatchWriteItem": "writes",
}


class Capacity:
    """Provisioned units a second, as many of reads as of writes; what a second leaves unused is lost.

    As with DynamoDB, a scan costs a unit for each 4 KB; it may spend more than is left, and nothing is read until the
    debt is paid.
    """

    def __init__(self, units: float) -> None:
        self.units = units
        self.refused = 0  # calls
        self.passed: Counter[str] = Counter()  # calls by operation
        self._left = {kind: (units, time.monotonic()) for kind in SPENT.values()}

    def left(self, operation: str) -> float:
        """Return the units that are left for an operation, below 0 for a debt."""
        if operation not in SPENT:
            return math.inf
        units, at = self._left[SPENT[operation]]
        return min(self.units, units + (time.monotonic() - at) * self.units)

    def spend(self, operation: str, reply: bytes) -> None:
        """Take the units of a call that was answered."""
        self.passed[operation] += 1
        consumed = json.loads(reply.split(b"\r\n\r\n", 1)[1]).get("ConsumedCapacity") or []
        units = sum(part["CapacityUnits"] for part in (consumed if isinstance(consumed, list) else [consumed]))
        if operation in {"Scan", "Query"}:
            units = len(reply) / 4096
        if operation in SPENT:
            self._left[SPENT[operation]] = (self.left(operation) - units, time.monotonic())


async def answer(plan: Plan, capacity: Capacity, head: bytes, body: bytes, forward: Forward) -> bytes:
    """Answer a call as the plan says, and as the capacity allows."""
    operation = find_operation(head)
    kind = choose_fault(plan, capacity, operation)
    if kind in ERRORS:
        return format_error(*ERRORS[kind])
    if kind == "HTML":
        return HTML
    if kind == "reset":
        raise HangUpError(reset=True)
    left: dict[str, Any] = {}
    if operation == "BatchWriteItem":
        head, body, left = hold_back(head, body, UNPROCESSED.get(kind, 0.0), capacity.left(operation))
    reply = await forward(head, body) if body else format_answer(200, {})
    capacity.spend(operation, reply)
    if kind == "answer lost":
        raise HangUpError(reset=True)
    if kind == "answer cut":
        raise HangUpError(reply[: len(reply) - 5])
    return merge(reply, left) if left else reply


def choose_fault(plan: Plan, capacity: Capacity, operation: str) -> str:
    """Return the fault that a call gets: the plan's, or for want of capacity; nothing if it goes well."""
    kind = plan.next_fault(operation)
    if kind in UNPROCESSED and operation != "BatchWriteItem":
        return "throttled"
    if not kind and capacity.left(operation) < 1:
        capacity.refused += 1
        return "throughput exceeded"
    return kind


def find_operation(head: bytes) -> str:
    """Return the operation that is called."""
    lines = (line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    target = next((value for name, value in lines if name.lower() == b"x-amz-target"), b"")
    return target.decode().strip().rsplit(".", 1)[-1]


def hold_back(head: bytes, body: bytes, share: float, most: float) -> tuple[bytes, bytes, dict[str, Any]]:
    """Take a share of a batch's writes out, and those over `most`.

    Returns:
        What is left of the call, no body if all are out, and what was taken out.
    """
    call = json.loads(body)
    [(name, writes)] = call["RequestItems"].items()
    kept = int(min(len(writes) - (max(1, round(len(writes) * share)) if share else 0), most))
    if kept == len(writes):
        return head, body, {}
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
    """Add the writes that were held back to an answer."""
    _head, body = reply.split(b"\r\n\r\n", 1)
    return format_answer(200, json.loads(body) | {"UnprocessedItems": left})


def format_error(status: int, code: str) -> bytes:
    """Return an error as DynamoDB words it."""
    return format_answer(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "planned"})


def format_answer(status: int, body: dict[str, Any]) -> bytes:
    """Return an answer as it goes over the wire."""
    encoded = json.dumps(body).encode()
    phrase = HTTPStatus(status).phrase
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(encoded)}"
    return f"{head}\r\n\r\n".encode() + encoded


@contextmanager
def serve_faulty_store(store_url: str, plan: Plan, capacity: Capacity | None = None) -> Iterator[str]:
    """Serve the proxy, and return its address."""
    limit = capacity or Capacity(math.inf)
    with serve_proxy(store_url, partial(answer, plan, limit)) as url:
        yield url
