"""The DynamoDB client, against a store that is as strict as DynamoDB, and against one that misbehaves on purpose."""

import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, get_args

import botocore.session
import msgspec
import pytest
from botocore.exceptions import ClientError
from botocore.retries.standard import ExponentialBackoff
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.environment import CHECKOUT
from tasks.orders.choices import Detail, OrderType, Price
from tasks.table.client import Table
from tasks.table.create import create, create_command
from tasks.table.errors import (
    ERRORS,
    ConditionError,
    CredentialsError,
    MissingTableError,
    TableError,
    ThrottledError,
    TransientTableError,
    judge,
)
from tasks.table.lease import Lease, LeaseLostError
from tasks.table.pace import STALLED_CALLS
from tasks.table.read import read_whole
from tasks.table.requests import Item, check_table_name, delete_request, put_request
from tasks.table.snapshot import TableSnapshot
from tests.support.faults.issuer import Issuer, format_credentials, serve_issuer
from tests.support.faults.plan import Fault, Plan
from tests.support.faults.store import ERRORS as ERRORS_OF_STORE
from tests.support.faults.store import Capacity, serve_faulty_store
from tests.support.tables import scan

instants = st.datetimes(datetime(2003, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (bounds)
counts = st.integers(0, 10**9)
snapshots = st.builds(
    TableSnapshot,
    state=st.sampled_from(["writing", "complete"]),
    region_id=counts,
    order_type=st.sampled_from(get_args(OrderType)),
    price=st.sampled_from(get_args(Price)),
    detail=st.sampled_from(get_args(Detail)),
    last_modified=instants,
    expires=instants,
    etag=st.text(max_size=40),
    pages=counts,
    orders=counts,
    records=counts,
    written_at=instants,
    owner=st.text(max_size=40),
    lease=counts,
    version=counts,
)


@pytest.fixture
def table(store_url: str, table_name: str) -> Iterator[Table]:
    """A new table."""
    assert store_url
    with Table(table_name, 4) as opened:
        create(opened)
        yield opened


def unguarded() -> None:
    """Let every call be made."""


def record(number: int, size: int = 0) -> Item:
    """Return an item, so many bytes larger than it must be."""
    return {"pk": {"S": str(number)}, "price": {"N": "5.7"}, "padding": {"S": "x" * size}}


def test_missing_table_is_told(store_url: str, table_name: str) -> None:
    """A table that is not there is an error of its own, which names it and the AWS region."""
    assert store_url
    with (
        Table(table_name, 1) as table,
        pytest.raises(MissingTableError, match=f"{table_name} does not exist in us-east"),
    ):
        table.read_snapshot()


def test_table_is_created_once(table: Table, dynamodb: DynamoDBClient) -> None:
    """A table is created with on-demand billing and the key `pk`; to create it again does no harm."""
    create(table)
    described = dynamodb.describe_table(TableName=table.name)["Table"]
    assert described["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table.read_snapshot() is None


def test_create_command_makes_the_same(table: Table) -> None:
    """The command for one's own account has the region, the name and the key."""
    command = create_command(table)
    assert command.startswith("aws dynamodb create-table --endpoint-url http://127.0.0.1:")
    assert f" --region us-east-1 --table-name {table.name} " in command
    assert "AttributeName=pk,KeyType=HASH --billing-mode PAY_PER_REQUEST" in command


@given(snapshot=snapshots)
def test_snapshot_item_comes_back(snapshot: TableSnapshot) -> None:
    """Any `#snapshot` is read as it was written."""
    assert TableSnapshot.from_item(snapshot.to_item()) == snapshot


def test_snapshot_is_stored(table: Table, dynamodb: DynamoDBClient) -> None:
    """`#snapshot` is one item, its numbers numbers and its dates ISO 8601 in UTC; reads and writes are counted."""
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    snapshot = TableSnapshot(
        state="complete",
        region_id=10000002,
        order_type="sell",
        price="min",
        detail="compact",
        last_modified=now,
        expires=now,
        etag="",
        pages=433,
        orders=1,
        records=1,
        written_at=now,
    )
    with Lease(table) as lease:
        lease.wait()
        lease.complete(snapshot)
    item = table.read_snapshot()
    assert item == scan(dynamodb, table.name)["#snapshot"]
    assert item
    assert (item["pages"], item["last_modified"]) == ({"N": "433"}, {"S": "2026-11-24T12:00:00Z"})
    assert (table.read_units, table.write_units) == (2, 1)


def test_foreign_snapshot_is_told() -> None:
    """A `#snapshot` that is not this program's says so, and what to do."""
    with pytest.raises(
        TableError, match="#snapshot is not this program's .*: give another table_name, or run with force"
    ):
        TableSnapshot.from_item({"pk": {"S": "#snapshot"}})


@pytest.mark.parametrize("expected_records", [0, 30_000])
def test_scan_reads_all_pages(table: Table, expected_records: int) -> None:
    """A table of more than 1 MB is read whole, in one segment or in several, and without `#snapshot`."""
    requests = [put_request(record(number, 60_000)) for number in range(25)]
    table.write_batch(requests, unguarded)
    assert table.scan(expected_records) == {str(number): record(number, 60_000) for number in range(25)}


def test_batch_puts_and_deletes(table: Table, dynamodb: DynamoDBClient) -> None:
    """A batch puts and deletes, and its write units are counted."""
    table.write_batch([put_request(record(number)) for number in range(25)], unguarded)
    table.write_batch([put_request(record(100)), delete_request({"pk": {"S": "3"}})], unguarded)
    assert scan(dynamodb, table.name).keys() == {str(number) for number in range(25)} - {"3"} | {"100"}
    assert table.write_units == 27


def test_wrong_key_is_told(dynamodb: DynamoDBClient, table_name: str) -> None:
    """A table with another key is refused, by a message that says which it must be."""
    dynamodb.create_table(
        TableName=table_name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with Table(table_name, 1) as table, pytest.raises(TableError, match=r"partition key must be pk \(S\)") as caught:
        table.read_snapshot()
    assert type(caught.value) is TableError


class Scripted(BaseHTTPRequestHandler):
    """Answers BatchWriteItem as the table's name says."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    calls: dict[str, int] = {}  # noqa: RUF012 (one count for all connections)

    def do_POST(self) -> None:
        """Answer one call."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        [(name, writes)] = request["RequestItems"].items()
        call = self.calls[name] = self.calls.get(name, 0) + 1
        if name == "Reset":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif name == "Cut":
            self.send(200, {"UnprocessedItems": {name: writes}}, cut_bytes=40)
        elif name in ANSWERS:
            status, code = ANSWERS[name]
            self.send(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "told"})
        elif name in NULLS:
            self.send(200, {"UnprocessedItems": {name: None}, "ConsumedCapacity": NULLS[name]})
        else:
            left = {"All": writes, "Some": writes[5:], "Slow": writes if call % 5 else writes[1:]}[name]
            self.send(200, {"UnprocessedItems": {name: left} if left else {}})

    def send(self, status: int, body: dict[str, Any], cut_bytes: int = 0) -> None:
        """Send JSON, its end cut off."""
        encoded = json.dumps(body).encode()
        encoded = encoded[: len(encoded) - cut_bytes]
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


ANSWERS = {
    "Throttled": (400, "ProvisionedThroughputExceededException"),
    "Broken": (500, "InternalServerError"),
    "Denied": (400, "AccessDeniedException"),
    "Missing": (400, "ResourceNotFoundException"),
}
NULLS: dict[str, Any] = {
    "Null": None,
    "NullUnits": [{"TableName": "NullUnits", "CapacityUnits": None}],
    "NoUnits": [{"TableName": "NoUnits"}, None],
    "NullOne": {"CapacityUnits": None},
}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that does what the table's name says."""
    Scripted.calls.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Scripted) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr("tasks.table.pace.MAX_WAIT_SECONDS", 0.01)
        monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)  # between the SDK's own attempts
        yield
        server.shutdown()


REQUESTS = [put_request(record(number)) for number in range(25)]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(("name", "calls"), [("Some", 5), ("Slow", 125)])
def test_unprocessed_items_are_sent_again(name: str, calls: int) -> None:
    """What is left unprocessed is sent again, as long as some of it goes through, and is counted."""
    with Table(name, 1) as table:
        table.write_batch(REQUESTS, unguarded)
    assert (Scripted.calls[name], table.failures) == (calls, {"unprocessed items": calls - 1})


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("name", NULLS)
def test_null_is_nothing(name: str) -> None:
    """A store that says null where it has nothing to say is understood."""
    with Table(name, 1) as table:
        table.write_batch(REQUESTS, unguarded)
    assert (Scripted.calls[name], table.write_units) == (1, 0)


@pytest.mark.usefixtures("scripted")
def test_no_call_is_made_without_being_allowed() -> None:
    """Before each call, a repeated one too, it is asked whether it may be made; after a no nothing more is sent."""
    answers = iter([None, None, LeaseLostError("taken over")])

    def check() -> None:
        if answer := next(answers):
            raise answer

    with Table("Some", 1) as table, pytest.raises(LeaseLostError, match="taken over"):
        table.write_batch(REQUESTS, check)
    assert Scripted.calls["Some"] == 2


@pytest.mark.usefixtures("scripted")
def test_batch_without_progress_is_given_up() -> None:
    """After two dozen calls in a row that stored nothing the batch is given up for now, by its table and first item.

    Whether its items were left unprocessed or the whole batch was refused; boto3 sends a refused one again by itself.
    """
    for name, calls in (("All", STALLED_CALLS), ("Throttled", 2 * STALLED_CALLS)):
        with (
            Table(name, 1) as table,
            pytest.raises(
                ThrottledError, match=f"table {name}: 25 writes, the first a put of 0, were left unprocessed 24"
            ),
        ):
            table.write_batch(REQUESTS, unguarded)
        assert Scripted.calls[name] == calls


@pytest.mark.usefixtures("scripted")
def test_leaving_a_table_ends_its_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends does not wait for the capacity that its last batches lack."""
    monkeypatch.setattr("tasks.table.pace.MAX_WAIT_SECONDS", 60.0)
    monkeypatch.setattr("tasks.table.pace.FIRST_WAIT_SECONDS", 60.0)
    begun = time.monotonic()
    with Table("All", 1) as table:
        future = table.submit(table.write_batch, REQUESTS, unguarded)
        while not Scripted.calls.get("All"):
            time.sleep(0.01)
    assert isinstance(future.exception(), ThrottledError)
    assert time.monotonic() - begun < 10


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Throttled", ThrottledError),
        ("Broken", TransientTableError),
        ("Reset", TransientTableError),
        ("Cut", TransientTableError),
        ("Denied", TableError),
        ("Missing", MissingTableError),
    ],
)
def test_failed_call_is_judged(name: str, error: type[TableError]) -> None:
    """Throttling, DynamoDB's own failures and broken connections may pass; all else does not."""
    with Table(name, 1) as table, pytest.raises(error, match=f"table {name}") as caught:
        table.write_batch(REQUESTS, unguarded)
    assert type(caught.value) is error


def test_nobody_there_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is worth another try."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")
    with Table("MarketData", 1) as table, pytest.raises(TransientTableError, match="Could not connect to the endpoint"):
        table.read_snapshot()


@pytest.mark.parametrize("name", ["Abc", "MarketData-10000002", "a.b_c-d", "x" * 255])
def test_good_name_passes(name: str) -> None:
    """Names that DynamoDB takes pass."""
    assert check_table_name(name) == name


@pytest.mark.parametrize("name", ["", "ab", "a b", "Markt/Daten", "Märkte", "x" * 256, "MarketData\n"])
def test_bad_name_is_refused(name: str) -> None:
    """Names that DynamoDB does not take are refused before any call."""
    with pytest.raises(ValueError, match="table_name is .*: give 3 to 255 letters"):
        check_table_name(name)


def test_no_region_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an AWS region the message says what boto3 reads."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(TableError, match="must specify a region.*AWS_DEFAULT_REGION"):
        Table("MarketData", 1)


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:1", True), ("http://localhost:1", True), ("https://dynamodb.us-east-1.amazonaws.com", False)],
)
def test_this_machine_is_known(monkeypatch: pytest.MonkeyPatch, url: str, expected: bool) -> None:
    """Only a table on this machine may be created without asking."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    with Table("MarketData", 1) as table:
        assert table.connection.is_local is expected


@contextmanager
def provisioned(
    store_url: str, table: Table, units: float, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Table, Capacity]]:
    """Open a table through a proxy that gives so many units a second."""
    capacity = Capacity(units)
    with serve_faulty_store(store_url, Plan([]), capacity) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        with Table(table.name, 4) as opened:
            yield opened, capacity


def test_throttled_scan_goes_on(store_url: str, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of more pages than the capacity allows at once goes on where it was, and reads each page once."""
    items = {str(number): record(number, 300_000) for number in range(16)}
    for item in items.values():
        table.write_batch([put_request(item)], unguarded)
    with provisioned(store_url, table, 200, monkeypatch) as (opened, capacity):
        assert opened.scan(0) == items
    assert capacity.refused > 0
    assert capacity.passed["Scan"] == 6  # pages of 1 MB, and less in the last
    assert opened.failures["ProvisionedThroughputExceededException"] > 0
    assert opened.waits.seconds > 0


def test_throttled_writes_all_arrive(
    store_url: str, table: Table, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that are refused whole, or in part, are all stored at the table's pace; none is stored twice."""
    requests = [put_request(record(number)) for number in range(150)]
    begun = time.monotonic()
    with provisioned(store_url, table, 20, monkeypatch) as (opened, capacity):
        for future in [opened.submit(opened.write_batch, requests[n : n + 25], unguarded) for n in range(0, 150, 25)]:
            future.result()
    assert len(scan(dynamodb, table.name)) == 150
    assert capacity.refused > 0
    assert opened.write_units == 150
    assert 130 / 20 < time.monotonic() - begun < 4 * 150 / 20


def test_throttled_lease_and_readers(
    store_url: str, table: Table, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`#snapshot` is put and read at the table's pace, and a lease is kept while others take the capacity."""
    for name, seconds in (("STANDSTILL", 6.0), ("RENEW", 1.0), ("SAFE", 3.5)):
        monkeypatch.setattr(f"tasks.table.lease.{name}_SECONDS", seconds)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)  # between the SDK's own attempts
    snapshot = TableSnapshot(
        state="writing",
        region_id=10000002,
        order_type="sell",
        price="min",
        detail="compact",
        last_modified=datetime(2026, 11, 24, 12, tzinfo=UTC),
    )
    requests = [put_request(record(number)) for number in range(60)]
    with provisioned(store_url, table, 10, monkeypatch) as (opened, capacity), Lease(opened) as lease:
        lease.wait()
        assert lease.take(snapshot)
        batches = [opened.submit(opened.write_batch, requests[n : n + 20], lease.check) for n in (0, 20, 40)]
        for batch in batches:
            batch.result()
        lease.complete(msgspec.structs.replace(snapshot, state="complete", records=60))
        assert len(read_whole(opened)[0]) == 60
        for _ in range(30):
            opened.read_snapshot()
    assert capacity.refused > 0
    assert scan(dynamodb, table.name)["#snapshot"]["state"] == {"S": "complete"}


KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without any credentials of its own, and the file in which profiles are found."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.01)
    return tmp_path / "config"


@pytest.fixture
def issuer(request: pytest.FixtureRequest, keyless: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """Whoever issues credentials, to a container or a machine, as this process's only source of them."""
    assert not keyless.exists()
    with serve_issuer([]) as server:
        if request.param == "container":
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
        else:
            monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        yield server


def attempt(table: Table, times: int = 6) -> int:
    """Read `#snapshot` as a task that Prefect retries does, and return how many attempts failed."""
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
    """Whoever issues credentials may answer wrongly for a while: the table is there when they come."""
    issuer.plan = [LATE[kind]] * 4
    with Table(table_name, 1) as table:
        assert attempt(table) < 6
    assert not issuer.plan
    assert issuer.issued
    assert table.failures.total() > 0


@pytest.mark.parametrize("issuer", ["container", "machine"], indirect=True)
def test_credentials_that_never_come_are_given_up(issuer: Issuer, table_name: str) -> None:
    """They may pass as far as can be told, and the message says whom to ask."""
    issuer.plan = [(500, b"broken")] * 99
    with Table(table_name, 1) as table, pytest.raises(CredentialsError, match="credentials.* is its role still there"):
        table.read_snapshot()


@pytest.mark.parametrize("issuer", ["container"], indirect=True)
@pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
def test_credentials_that_are_not_accepted_are_asked_for_again(
    issuer: Issuer, store_url: str, table_name: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """What DynamoDB does not accept, or no longer, is replaced by what the issuer gives next."""
    monkeypatch.setitem(ERRORS_OF_STORE, "denied", (400, code))
    with serve_faulty_store(store_url, Plan([Fault("denied", times=2)])) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        with Table(table_name, 1) as table:
            assert attempt(table) == 2
    assert issuer.issued == 3


CONFIGURED: dict[str, tuple[dict[str, str], str, str]] = {  # what is set, the profile's file, what is said
    "nothing": ({}, "", "Unable to locate credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"),
    "no such profile": ({"AWS_PROFILE": "x"}, "", r"profile \(x\) could not be found; .*`aws configure list-profiles`"),
    "half a key": ({"AWS_ACCESS_KEY_ID": "AKIA"}, "", "missing: AWS_SECRET_ACCESS_KEY; give both"),
    "odd region": ({**KEYS, "AWS_DEFAULT_REGION": "us east"}, "", "'us east'.*; set AWS_DEFAULT_REGION to AWS"),
    "no scheme": (
        {**KEYS, "AWS_ENDPOINT_URL_DYNAMODB": "127.0.0.1:8000"},
        "",
        "127.0.0.1:8000; AWS_ENDPOINT_URL_DYNAMODB must be an address such as http://127.0.0.1:8000",
    ),
    "session over": (
        {},
        "[default]\nsso_start_url = https://x\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\n",
        "; log in again, by `aws sso login`",
    ),
    "no such program": ({}, "[default]\ncredential_process = /none/there\n", "FileNotFoundError.*/none/there"),
    "issuer elsewhere": (
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/"},
        "",
        "Unsupported host 'example.com'",
    ),
}


@pytest.mark.parametrize("kind", CONFIGURED)
def test_wrong_settings_are_told_at_once(
    keyless: Path, monkeypatch: pytest.MonkeyPatch, store_url: str, kind: str
) -> None:
    """What no waiting mends is final, and the message says which setting it is."""
    assert store_url
    variables, file, message = CONFIGURED[kind]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    keyless.write_text(file)
    with pytest.raises(TableError, match=message) as caught, Table("MarketData", 1) as table:
        table.read_snapshot()
    assert type(caught.value) is TableError


def answer_with(status: int, code: str, message: str) -> ClientError:
    """Return boto3's error for an answer of DynamoDB."""
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetItem")


MAY_PASS = {
    *("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"),
    *("InternalServerError", "InternalFailure", "ServiceUnavailable", "RequestTimeoutException"),
    *("ReplicatedWriteConflictException", "TransactionConflictException", "TransactionInProgressException"),
    *("ResourceInUseException", "TableInUseException", "BackupInUseException", "LimitExceededException"),
    *("UnrecognizedClientException", "ExpiredTokenException", "RequestExpired"),
}


def test_all_documented_errors_are_judged() -> None:
    """Each error of DynamoDB's service model, as boto3 has it, is in the table; those that may pass are these."""
    model = botocore.session.get_session().get_service_model("dynamodb")
    assert {shape.name for shape in model.error_shapes} <= ERRORS.keys()
    found = {code for code, fate in ERRORS.items() if issubclass(fate.error, TransientTableError)}
    assert found >= MAY_PASS
    of_model = {shape.name for shape in model.error_shapes}
    assert found & of_model <= MAY_PASS
    assert (ERRORS["ResourceNotFoundException"].error, ERRORS["ConditionalCheckFailedException"].error) == (
        MissingTableError,
        ConditionError,
    )


@pytest.mark.parametrize("status", [400, 409])
@pytest.mark.parametrize("code", ERRORS)
def test_errors_are_raised_as_the_table_says(
    store_url: str, table: Table, monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    """Over a socket, each has the class that the table gives it, its code and its advice.

    But keys that stand in the environment expire for good.
    """
    monkeypatch.setitem(ERRORS_OF_STORE, "denied", (status, code))
    monkeypatch.setattr("tasks.table.pace.STALLED_CALLS", 0)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)
    with serve_faulty_store(store_url, Plan([Fault("denied", times=99)])) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        with Table(table.name, 1) as opened, pytest.raises(TableError, match=f"table {table.name}") as caught:
            opened.read_snapshot()
    expected = TableError if code.startswith("ExpiredToken") else ERRORS[code].error
    assert type(caught.value) is expected
    if expected not in {MissingTableError, ConditionError}:
        assert f"({code}) " in str(caught.value)
        assert str(caught.value).endswith(f"planned; {ERRORS[code].advice}")
    assert bool(opened.failures) == issubclass(expected, TransientTableError)


KEY = (
    "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:a:1:key/k"
)
TABLE = (
    "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: dynamodb:Scan on resource: table/kms-prices"
)
ADVICE: list[tuple[int, str, str, type[TableError], str]] = [
    (400, "AccessDeniedException", KEY, TableError, "allow the role kms:Decrypt .*, in the key's own policy too"),
    (400, "AccessDeniedException", TABLE, TableError, "iam-policy.json has what the role needs: is this table among"),
    (400, "ValidationException", "The AWS KMS key is disabled", TableError, "enable the key, and allow the role kms:"),
    (
        400,
        "InvalidSignatureException",
        "Signature expired: 1 is now earlier",
        TransientTableError,
        "this machine's clock",
    ),
    (400, "InvalidSignatureException", "The request signature we", TableError, "AWS_SECRET_ACCESS_KEY does not belong"),
    (
        400,
        "InvalidSignatureException",
        "Credential should be scoped to a valid region, not 'us-east-1'.",
        TableError,
        "AWS_DEFAULT_REGION, or the profile's region, is not the endpoint's",
    ),
    (400, "ValidationException", "The provided key element does not match", TableError, r"must be pk \(S\)"),
    (
        400,
        "ValidationException",
        "1 validation error detected",
        TableError,
        "is the address in AWS_ENDPOINT_URL_DYNAMODB",
    ),
    (404, "404", "Not Found", TableError, "is the address in AWS_ENDPOINT_URL_DYNAMODB DynamoDB's"),
    (429, "429", "", ThrottledError, "more capacity"),
    (408, "408", "", TransientTableError, "DynamoDB's own failure"),
    (503, "Unheard", "", TransientTableError, "DynamoDB's own failure"),
    (500, "AccessDeniedException", "", TransientTableError, "DynamoDB's own failure"),
]


@pytest.mark.parametrize(("status", "code", "message", "error", "advice"), ADVICE)
def test_advice_fits_what_was_said(status: int, code: str, message: str, error: type[TableError], advice: str) -> None:
    """What one code is used for several things is told apart by its message; an unknown code by its status."""
    fate = judge(answer_with(status, code, message))
    assert fate.error is error
    assert re.search(advice, fate.advice)


def test_policy_has_what_the_advice_names() -> None:
    """The policy that a denied role is sent to has the actions that the message names."""
    policy = Path(CHECKOUT, "deployments/aws/iam-policy.json").read_text()
    for fate in ERRORS.values():
        for action in re.findall(r"kms:\w+|dynamodb:\w+", fate.advice if "iam-policy" in fate.advice else ""):
            assert f'"{action}"' in policy
