"""Addresses: which are taken, and which are this machine."""

import pytest

from tasks.esi.pool import DEFAULT_URL
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
    """An address that is none, or sends in the clear to another machine, is refused by its name, but for a password."""
    with pytest.raises(ValueError, match=message) as caught:
        check_url(url, "ESI_URL", DEFAULT_URL)
    assert "planted" not in str(caught.value)


def test_good_address_is_taken() -> None:
    """Blanks around an address and its last slash do not count; a path before the route does."""
    assert check_url(" https://proxy.example/esi/ ", "ESI_URL", DEFAULT_URL) == "https://proxy.example/esi"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a.b", False)],
)
def test_this_machine_is_known(host: str, expected: bool) -> None:
    """Loopback addresses and localhost are this machine, and nothing else."""
    assert is_this_machine(host) is expected
