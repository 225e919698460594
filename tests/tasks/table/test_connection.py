"""The connection to DynamoDB: its endpoint and its credentials."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.table.client import Table
from tasks.table.errors import (
    CredentialsError,
    MissingTableError,
    TableError,
    TransientTableError,
)
from tests.support.faults.issuer import Issuer, format_credentials, serve_issuer
from tests.support.faults.plan import Fault, Plan
from tests.support.faults.store import ERRORS as ERRORS_OF_STORE
from tests.support.faults.store import serve_faulty_store


def test_refused_connection_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is a transient error."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")
    with Table("MarketData", 1) as table, pytest.raises(TransientTableError, match="Could not connect to the endpoint"):
        table.read_snapshot()


def test_missing_region_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an AWS region, the message names the variable that boto3 reads."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(TableError, match="must specify a region.*AWS_DEFAULT_REGION"):
        Table("MarketData", 1)


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:1", True), ("http://localhost:1", True), ("https://dynamodb.us-east-1.amazonaws.com", False)],
)
def test_this_machine_is_known(monkeypatch: pytest.MonkeyPatch, url: str, expected: bool) -> None:
    """Only loopback addresses are this machine, where missing tables are created."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    with Table("MarketData", 1) as table:
        assert table.connection.is_local is expected


KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Remove all credentials from the environment, and return the path of the file with profiles."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.01)
    return tmp_path / "config"


@pytest.fixture
def issuer(request: pytest.FixtureRequest, keyless: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """Yield a credential service, of a container or a machine, as the only source of credentials."""
    assert not keyless.exists()
    with serve_issuer([]) as server:
        if request.param == "container":
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
        else:
            monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        yield server


def attempt(table: Table, times: int = 6) -> int:
    """Read `#snapshot` with retries, as in a task, and return how many attempts failed."""
    for failed in range(times):
        try:
            table.read_snapshot()
        except TransientTableError:
            continue
        except MissingTableError:
            return failed
    return times


LATE = {
    "429": (429, b"slow down"),
    "500": (500, b"broken"),
    "503": (503, b""),
    "404": (404, b"no role yet"),
    "no JSON": (200, b"<html>"),
    "no keys": (200, b'{"Code": "Failed", "Message": "later"}'),
    "no date": (200, b'{"AccessKeyId": "a", "SecretAccessKey": "b", "Token": "c", "Expiration": "soon"}'),
    "a list": (200, b"[]"),
    "expired": (200, format_credentials("OLD", -60)),
}


@pytest.mark.usefixtures("store_url")
@pytest.mark.parametrize(
    ("issuer", "kind"),
    [*(("container", kind) for kind in LATE), *(("machine", kind) for kind in LATE if kind != "expired")],
    indirect=["issuer"],
)
def test_late_credentials_are_waited_for(issuer: Issuer, kind: str, table_name: str) -> None:
    """If the credential service fails for a while, retries succeed once it has recovered."""
    issuer.plan = [LATE[kind]] * 4
    with Table(table_name, 1) as table:
        assert attempt(table) < 6
    assert not issuer.plan
    assert issuer.issued
    assert table.failures.total() > 0


@pytest.mark.parametrize("issuer", ["container", "machine"], indirect=True)
def test_credentials_that_never_come_are_given_up(issuer: Issuer, table_name: str) -> None:
    """If credentials never come, the error stays transient, and the message says what to check."""
    issuer.plan = [(500, b"broken")] * 99
    with (
        Table(table_name, 1) as table,
        pytest.raises(CredentialsError, match="credentials.* check that its role still exists"),
    ):
        table.read_snapshot()


@pytest.mark.parametrize("issuer", ["container"], indirect=True)
@pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
def test_rejected_credentials_are_replaced(
    issuer: Issuer, store_url: str, table_name: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """If DynamoDB rejects the credentials, the next attempt gets new ones from the issuer."""
    monkeypatch.setitem(ERRORS_OF_STORE, "denied", (400, code))
    with serve_faulty_store(store_url, Plan([Fault("denied", times=2)])) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        with Table(table_name, 1) as table:
            assert attempt(table) == 2
    assert issuer.issued == 3


CONFIGURED: dict[str, tuple[dict[str, str], str, str]] = {  # variables, the file with profiles, the message
    "nothing": ({}, "", "Unable to locate credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"),
    "no such profile": ({"AWS_PROFILE": "x"}, "", r"profile \(x\) could not be found; .*`aws configure list-profiles`"),
    "half a key": ({"AWS_ACCESS_KEY_ID": "AKIA"}, "", "missing: AWS_SECRET_ACCESS_KEY; give both"),
    "odd region": ({**KEYS, "AWS_DEFAULT_REGION": "us east"}, "", "'us east'.*; set AWS_DEFAULT_REGION to an AWS"),
    "no scheme": (
        {**KEYS, "AWS_ENDPOINT_URL_DYNAMODB": "127.0.0.1:8000"},
        "",
        "127.0.0.1:8000; AWS_ENDPOINT_URL_DYNAMODB must be an address such as http://127.0.0.1:8000",
    ),
    "session over": (
        {},
        "[default]\nsso_start_url = https://x\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\n",
        "; log in again with `aws sso login`",
    ),
    "no such program": ({}, "[default]\ncredential_process = /none/there\n", "FileNotFoundError.*/none/there"),
    "issuer elsewhere": (
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/"},
        "",
        "Unsupported host 'example.com'",
    ),
}


@pytest.mark.parametrize("kind", CONFIGURED)
def test_wrong_settings_fail_at_once(keyless: Path, monkeypatch: pytest.MonkeyPatch, store_url: str, kind: str) -> None:
    """A wrong setting is not retried, and the message names it."""
    assert store_url
    variables, file, message = CONFIGURED[kind]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    keyless.write_text(file)
    with pytest.raises(TableError, match=message) as caught, Table("MarketData", 1) as table:
        table.read_snapshot()
    assert type(caught.value) is TableError


ROLE = """[default]
role_arn = arn:aws:iam::000000000000:role/market-data
source_profile = keys
[profile keys]
aws_access_key_id = AKIA
aws_secret_access_key = secret
"""


def test_role_is_assumed(table: Table, keyless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile with a role gets its credentials from STS, which responds in XML, not in JSON."""
    keyless.write_text(ROLE)
    with serve_issuer([]) as issuer:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", issuer.url)
        with Table(table.name, 1) as opened:
            assert opened.read_snapshot() is None
    assert issuer.issued == 1


def test_unreadable_role_may_pass(keyless: Path, monkeypatch: pytest.MonkeyPatch, table_name: str) -> None:
    """If STS does not respond in XML, its credentials are late, so the call is retried."""
    keyless.write_text(ROLE)
    with serve_issuer([(200, b"{}")] * 9) as issuer:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", issuer.url)
        with Table(table_name, 1) as table, pytest.raises(CredentialsError, match="credentials"):
            table.read_snapshot()
