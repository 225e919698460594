"""Timeouts, certificates, URLs, and the time that a run spends waiting."""

import ipaddress
import ssl
import time
from functools import cache

import httpx


class Waits:
    """A run's waits; overlapping ones count once."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []  # monotonic times

    def sleep(self, seconds: float) -> None:
        """Wait."""
        started = time.monotonic()
        time.sleep(seconds)
        self.add(started)

    def add(self, started: float) -> None:
        """Add the time from `started`, monotonic time, until now."""
        self._spans.append((started, time.monotonic()))

    @property
    def seconds(self) -> float:
        """The total waiting time."""
        total, covered = 0.0, float("-inf")
        for started, ended in sorted(self._spans):
            total += max(0.0, ended - max(started, covered))
            covered = max(covered, ended)
        return total


TIMEOUT = httpx.Timeout(connect=5.0, read=10.0, write=5.0, pool=None)


@cache
def trusted() -> ssl.SSLContext:
    """Return httpx's default certificates, read once per process: it takes as long as a small region's pages."""
    return httpx.create_ssl_context()


def check_url(url: str, name: str, example: str) -> str:
    """Return a setting's `url` without surrounding whitespace and trailing slash.

    Raises:
        ValueError: it is not an http(s) URL, is plain http to another machine, or has a user, a query or a fragment.
    """
    if "@" in url:
        raise ValueError(f"{name} has a user name or password in it, which messages would show: give it without")
    try:
        parts = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ValueError(f"{name} is {url!r}: {error}; give an http(s) address, such as {example}") from error
    if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
        raise ValueError(f"{name} is {url!r}: give an http(s) address with no query, such as {example}")
    if parts.scheme == "http" and not is_this_machine(parts.host):
        raise ValueError(f"{name} is {url!r}: plain http is for this machine only, use https")
    return url.strip().rstrip("/")


def is_this_machine(host: str) -> bool:
    """Return whether `host` is `localhost` or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def fits_header(value: str) -> bool:
    """Return whether a value can be sent in a header: printable ASCII."""
    return value.isascii() and value.isprintable()
