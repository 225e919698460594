"""Reads the bodies of responses: decompresses and decodes them."""

import codecs
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import httpx
import msgspec

from tasks.esi.endpoint import ESI
from tasks.esi.errors import RefusedError, TransientError

MAX_BODY_BYTES = 32 * 1024 * 1024  # decompressed; a full page is about 265 KB
BODY_SECONDS = 30.0  # for a whole body: httpx's read timeout allows a server that sends a byte at a time
R = TypeVar("R")


def read_body(response: httpx.Response, deadline: float, what: str) -> bytes:
    """Read and decompress a body; stop once it exceeds `MAX_BODY_BYTES` or `deadline`.

    httpx's own decoding would decompress all of a gzip bomb before its size could be checked.

    Raises:
        TransientError: the body is undecodable, too large or too slow.
        httpx.HTTPError: the connection broke or timed out.
    """
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("gzip", "identity"):
        raise TransientError(f"{what}: the body is encoded as {encoding!r}, expected gzip")
    gunzip = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    size_bytes = 0
    for packed in response.iter_raw():
        rest = packed
        while rest:
            if encoding == "identity":
                part, rest = rest, b""
            else:
                if gunzip.eof:  # another member follows: RFC 1952, 2.2
                    gunzip = zlib.decompressobj(wbits=31)
                part, rest = unpack(gunzip, rest, MAX_BODY_BYTES + 1 - size_bytes, what), gunzip.unused_data
            parts.append(part)
            size_bytes += len(part)
            if size_bytes > MAX_BODY_BYTES:
                raise TransientError(f"{what}: the body is larger than {MAX_BODY_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise TransientError(f"{what}: the body was not complete after {BODY_SECONDS:.0f} s")
    if encoding == "gzip" and not gunzip.eof:
        raise TransientError(f"{what}: the body ends before its gzip does")
    return b"".join(parts)


def unpack(gunzip: "zlib._Decompress", packed: bytes, most_bytes: int, what: str) -> bytes:
    """Decompress a piece of a gzip stream to at most `most_bytes`.

    Raises:
        TransientError: it is not gzip.
    """
    try:
        return gunzip.decompress(packed, most_bytes)
    except zlib.error as error:
        raise TransientError(f"{what}: the body is not gzip: {error}") from error


def decode(
    body: bytes, kind: type[R], what: str, float_hook: Callable[[str], object] | None = None, api: str = ESI.api
) -> R:
    """Decode and validate JSON.

    Args:
        body: JSON.
        kind: type to decode to.
        what: names the request in messages.
        float_hook: called with the text of each number that is no integer, where `kind` has `Any`.
        api: names the API in messages.

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
    texts = [text for name in names if isinstance(text := found.get(name), str)]
    return texts[0][:500] if texts else ""
