"""Reads the bodies of responses: decompresses and decodes them."""

import codecs
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import httpx
import msgspec

from tasks.esi.errors import RefusedError, TransientError

MAX_BODY_BYTES = 32 * 1024 * 1024  # decompressed; a full page is about 265 KB
BODY_SECONDS = 30.0  # for a whole body: httpx's read timeout allows a server that sends a byte at a time
R = TypeVar("R")


def read_body(response: httpx.Response, what: str, most_seconds: float | None = None) -> bytes:
    """Read and decompress a body, piece by piece; `what` names the request in messages.

    httpx's own decoding would decompress all of a gzip bomb before its size could be checked.

    Raises:
        TransientError: the body is undecodable, too large or too slow.
        httpx.HTTPError: the connection broke or timed out.
    """
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("gzip", "identity"):
        raise TransientError(f"{what}: the body is encoded as {encoding!r}, expected gzip")
    most_seconds = most_seconds or BODY_SECONDS
    deadline = time.monotonic() + most_seconds
    gunzip = zlib.decompressobj(wbits=31)
    body = bytearray()
    for packed in response.iter_raw():
        rest = packed
        while rest:
            if encoding == "identity":
                part, rest = rest, b""
            else:
                if gunzip.eof:  # another member follows: RFC 1952, 2.2
                    gunzip = zlib.decompressobj(wbits=31)
                try:
                    part, rest = gunzip.decompress(rest, MAX_BODY_BYTES + 1 - len(body)), gunzip.unused_data
                except zlib.error as error:
                    raise TransientError(f"{what}: the body is not gzip: {error}") from error
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise TransientError(f"{what}: the body is larger than {MAX_BODY_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise TransientError(f"{what}: the body was not complete after {most_seconds:.0f} s")
    if encoding == "gzip" and not gunzip.eof:
        raise TransientError(f"{what}: the body ends before its gzip does")
    return bytes(body)


def decode(
    body: bytes, kind: type[R], what: str, float_hook: Callable[[str], object] | None = None, api: str = "ESI"
) -> R:
    """Decode and validate JSON; `what` and `api` name the request and the API in messages.

    `float_hook` is called with the text of each number that is no integer, where `kind` has `Any`.

    Raises:
        RefusedError: a value is missing or of the wrong type.
        TransientError: it is not JSON, or an error despite the 200.
    """
    try:
        return msgspec.json.Decoder(kind, float_hook=float_hook).decode(body.removeprefix(codecs.BOM_UTF8))
    except msgspec.ValidationError as error:
        if text := find_error(body):
            raise TransientError(f'{what}: {api} answered 200, but with the error "{text}"', "error as 200") from error
        raise RefusedError(f"{what}: {error}; nothing was stored, the next run tries again") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TransientError(f"{what}: the body is not JSON: {error}") from error


def find_error(body: bytes, names: Sequence[str] = ("error",)) -> str:
    """Return the text of the first of some members in an error body, empty if there is none."""
    try:
        found = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return next((text[:500] for name in names if isinstance(text := found.get(name), str)), "")
