"""Addresses: which are accepted, and which are this machine."""

import pytest

from tasks.esi.client import DEFAULT_URL
from tasks.network import check_url, is_this_machine


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "ESI_URL is '': give an http"),
        ("esi.evetech.net", "give an http"),
        ("ftp://esi.evetech.net", "give an http"),
        ("file:///etc/passwd", "give an http"),
        ("http://[::1", "give an http"),
        ("https://x\0", "give an http"),
        ("http://esi.evetech.net", "plain http is for this machine only, use https"),
        ("http://10.0.0.1", "plain http is for this machine only"),
        ("https://esi.evetech.net/?datasource=tranquility", "with no query, such as https://esi"),
        ("https://me:planted@esi.evetech.net", "has a user name or password in it.*: give it without"),
    ],
)
def test_bad_address_is_refused(url: str, message: str) -> None:
    """An invalid address, or plain http to another machine, is refused; the message never shows a password."""
    with pytest.raises(ValueError, match=message) as caught:
        check_url(url, "ESI_URL", DEFAULT_URL)
    assert "planted" not in str(caught.value)


def test_good_address_is_taken() -> None:
    """Surrounding whitespace and a trailing slash are removed; a path is kept."""
    assert check_url(" https://proxy.example/esi/ ", "ESI_URL", DEFAULT_URL) == "https://proxy.example/esi"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a.b", False)],
)
def test_this_machine_is_known(host: str, expected: bool) -> None:
    """Only loopback addresses and localhost are this machine."""
    assert is_this_machine(host) is expected
