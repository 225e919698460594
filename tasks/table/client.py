"""The DynamoDB client for one market table: partition key `pk` (S), one item a record, and `#snapshot`.

A table that several regions share has the region in each key: `10000002#34`, `#snapshot#10000002`. Outside of this
module an item is known by its type all the same.

TableError                the table, or the way to it, refused
├── TransientTableError   may pass: a broken connection, a conflict, DynamoDB's own failure
│   ├── ThrottledError    may pass: the capacity is used up; below Prefect, calls wait for it
│   └── CredentialsError  may pass: the credentials are late, or not known everywhere yet
├── MissingTableError     there is no such table
└── ConditionError        the item is not as it was when it was read

Which error of DynamoDB's is which, and what to do about it, is in `ERRORS`; boto3's own are in `BOTO_ERRORS`.
"""

import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.parsers
import botocore.session
import msgspec
from boto3.dynamodb.types import TypeSerializer
from botocore.config import Config
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import (
    BaseEndpointResolverError,
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's)
    CredentialRetrievalError,
    EndpointConnectionError,
    EndpointProviderError,
    HTTPClientError,
    InvalidRegionError,
    LoginError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.utils import IMDSFetcher, resolve_imds_endpoint_mode

from tasks.esi.client import is_this_machine
from tasks.network import Waits

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SNAPSHOT_KEY = "#snapshot"
BATCH_ITEMS = 25  # DynamoDB's own limit for BatchWriteItem
STALLED_CALLS = 24  # in a row without progress, two minutes with their waits: then Prefect retries
FIRST_WAIT_SECONDS = 0.05
MAX_WAIT_SECONDS = 10.0
MAX_DOUBLINGS = 8  # of the first wait: more would be over the longest
METADATA_SECONDS = 1.0
SEGMENT_RECORDS = 10_000  # a Scan answers 1 MB a call: a smaller table is one call, and a second segment one too many

_api_descriptions = botocore.loaders.create_loader()  # read once a process: it takes longer than a small run's calls
_serialize = TypeSerializer().serialize

Item = dict[str, Any]  # in DynamoDB's own notation: {"pk": {"S": "34"}, "price": {"N": "5.7"}, …}
P = ParamSpec("P")
R = TypeVar("R")
W = TypeVar("W")


class TableError(Exception):
    """The table, or the way to it, refused."""


class TransientTableError(TableError):
    """A broken connection, a conflict or DynamoDB's own failure: may pass."""


class ThrottledError(TransientTableError):
    """The capacity of the table or the account is used up: it comes back with time."""


class CredentialsError(TransientTableError):
    """The credentials are late, or not known everywhere yet: new ones are asked for at the next attempt."""


class MissingTableError(TableError):
    """There is no such table."""


class ConditionError(TableError):
    """The item is not as it was when it was read: somebody else has written it."""


class Fate(NamedTuple):
    """What becomes of a call that failed."""

    error: type[TableError]
    advice: str  # why, or what to do

    def explain(self, what: str) -> TableError:
        """Return the error: what happened, and the advice."""
        return self.error(f"{what.rstrip(' .')}; {self.advice}")


class Connection(NamedTuple):
    """A client, and the credentials that it signs with."""

    client: "DynamoDBClient"
    credentials: Credentials


THROTTLED = Fate(ThrottledError, "give the table more capacity, or on-demand billing, if this goes on")
QUOTA = Fate(ThrottledError, "the account's quota is used up, to which its other programs count")
FAILURE = Fate(TransientTableError, "DynamoDB's own failure")
BUSY = Fate(TransientTableError, "somebody else is changing the item or the table")
DENIED = Fate(
    TableError,
    "deployments/aws/iam-policy.json has what the role needs: is this table among its resources, and does no other "
    "policy deny it?",
)
NO_KEY = Fate(
    TableError,
    "the table's KMS key is closed to the role: enable the key, and allow the role kms:Decrypt and kms:DescribeKey, as "
    "deployments/aws/iam-policy.json does, in the key's own policy too",
)
KEY_BUSY = Fate(TransientTableError, "the table's KMS key cannot be used for the moment")
UNKNOWN_KEYS = Fate(
    CredentialsError,
    "AWS does not know the access key or its session: new ones take some seconds; else set the right ones, for an "
    "account in which the region is enabled",
)
EXPIRED = Fate(CredentialsError, "the session is over: get new credentials, such as by `aws sso login`")
WRONG_SECRET = Fate(TableError, "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID: set both again")
UNSIGNED = Fate(TableError, "the signature was lost on its way: a proxy must leave the headers as they are")
CLOCK = Fate(TransientTableError, "this machine's clock and AWS's differ by minutes: set it, such as by NTP")
NOT_ENABLED = Fate(TableError, "enable DynamoDB and the region for the account")
MISSING = Fate(MissingTableError, "if it is in another region or account, set AWS_DEFAULT_REGION or AWS_PROFILE")
FULL = Fate(TableError, "remove the table's local secondary indexes, or give another table_name")
MISTAKE = Fate(
    TableError, "DynamoDB does not answer this program so: is the address in AWS_ENDPOINT_URL_DYNAMODB DynamoDB's?"
)
# By the error's code: all of DynamoDB's service model, those that AWS's services share, and KMS's, which DynamoDB hands
# on. One that is missing here is judged by its HTTP status.
ERRORS: dict[str, Fate] = {
    # capacity: calls wait for it
    "ProvisionedThroughputExceededException": THROTTLED,
    "ThrottlingException": THROTTLED,
    "Throttling": THROTTLED,
    "ThrottledException": THROTTLED,
    "RequestThrottled": THROTTLED,
    "RequestThrottledException": THROTTLED,
    "TooManyRequestsException": THROTTLED,
    "SlowDown": THROTTLED,
    "BandwidthLimitExceeded": THROTTLED,
    "RequestLimitExceeded": QUOTA,
    # passes by itself
    "InternalServerError": FAILURE,
    "InternalServerException": FAILURE,
    "InternalFailure": FAILURE,
    "InternalError": FAILURE,
    "ServiceUnavailable": FAILURE,
    "ServiceUnavailableException": FAILURE,
    "RequestTimeout": FAILURE,
    "RequestTimeoutException": FAILURE,
    "RequestAbortedException": FAILURE,
    "PriorRequestNotComplete": FAILURE,
    "IDPCommunicationError": FAILURE,  # STS's, as the next
    "InvalidIdentityToken": FAILURE,  # the token's file is read again
    "ReplicatedWriteConflictException": BUSY,  # a request in another region, of a global table
    "TransactionConflictException": BUSY,
    "TransactionInProgressException": BUSY,
    "ResourceInUseException": BUSY,  # being created, updated or deleted, as the next three
    "TableInUseException": BUSY,
    "BackupInUseException": BUSY,
    "LimitExceededException": BUSY,  # of tables that are being created or changed at once
    # the table's state
    "ResourceNotFoundException": MISSING,
    "TableNotFoundException": MISSING,
    "ConditionalCheckFailedException": Fate(ConditionError, ""),
    "ItemCollectionSizeLimitExceededException": FULL,
    # who asks
    "AccessDeniedException": DENIED,
    "AccessDenied": DENIED,
    "NotAuthorized": DENIED,
    "UnauthorizedOperation": DENIED,
    "UnrecognizedClientException": UNKNOWN_KEYS,
    "InvalidClientTokenId": UNKNOWN_KEYS,
    "ExpiredTokenException": EXPIRED,
    "ExpiredToken": EXPIRED,
    "InvalidSignatureException": WRONG_SECRET,
    "SignatureDoesNotMatch": WRONG_SECRET,
    "IncompleteSignature": UNSIGNED,
    "IncompleteSignatureException": UNSIGNED,
    "MissingAuthenticationToken": UNSIGNED,
    "MissingAuthenticationTokenException": UNSIGNED,
    "RequestExpired": CLOCK,
    "RequestTimeTooSkewed": CLOCK,
    "RequestInTheFuture": CLOCK,
    "OptInRequired": NOT_ENABLED,
    "SubscriptionRequiredException": NOT_ENABLED,
    # the table's key in KMS
    "KMSAccessDeniedException": NO_KEY,
    "KMSDisabledException": NO_KEY,
    "KMSInvalidStateException": NO_KEY,
    "KMSNotFoundException": NO_KEY,
    "KMSOptInRequired": NO_KEY,
    "KMSInternalException": KEY_BUSY,
    "KMSThrottlingException": KEY_BUSY,
    "KeyUnavailableException": KEY_BUSY,
    "DependencyTimeoutException": KEY_BUSY,
    # what this program sends, or whom it sends it to
    "ValidationException": MISTAKE,
    "ValidationError": MISTAKE,
    "SerializationException": MISTAKE,
    "UnknownOperationException": MISTAKE,
    "InvalidAction": MISTAKE,
    "InvalidParameterCombination": MISTAKE,
    "InvalidParameterValue": MISTAKE,
    "InvalidQueryParameter": MISTAKE,
    "MalformedHttpRequestException": MISTAKE,
    "MalformedQueryString": MISTAKE,
    "MissingAction": MISTAKE,
    "MissingParameter": MISTAKE,
    "RequestEntityTooLargeException": MISTAKE,
    # of operations that this program does not use: transactions, PartiQL, indexes, policies, backups, exports, replicas
    "DuplicateItemException": MISTAKE,
    "IdempotentParameterMismatchException": MISTAKE,
    "IndexNotFoundException": MISTAKE,
    "TransactionCanceledException": MISTAKE,
    "PolicyNotFoundException": MISTAKE,
    "BackupNotFoundException": MISTAKE,
    "ContinuousBackupsUnavailableException": MISTAKE,
    "PointInTimeRecoveryUnavailableException": MISTAKE,
    "InvalidRestoreTimeException": MISTAKE,
    "TableAlreadyExistsException": MISTAKE,
    "ExportConflictException": MISTAKE,
    "ExportNotFoundException": MISTAKE,
    "InvalidExportTimeException": MISTAKE,
    "ImportConflictException": MISTAKE,
    "ImportNotFoundException": MISTAKE,
    "GlobalTableAlreadyExistsException": MISTAKE,
    "GlobalTableNotFoundException": MISTAKE,
    "ReplicaAlreadyExistsException": MISTAKE,
    "ReplicaNotFoundException": MISTAKE,
}
# Of what would be final by its code, what the message says besides; the first that fits counts.
PHRASES: dict[str, Fate] = {
    r"\bkms:|\bKMS|Key Management Service": NO_KEY,
    "Signature expired|Signature not yet current": CLOCK,
    "Credential should be scoped": Fate(
        TableError, "AWS_DEFAULT_REGION, or the profile's region, is not the endpoint's: set it to that"
    ),
    "key element does not match|conditions on the keys": Fate(
        TableError, "its partition key must be pk (S), with no sort key: give another table_name"
    ),
}
ADDRESS = "if this goes on, check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_DYNAMODB"
LATE = Fate(
    CredentialsError, "what issues this machine's or container's credentials gave none; is its role still there?"
)
REGION = Fate(TableError, "set AWS_DEFAULT_REGION to the table's region, such as us-east-1")
# By boto3's own error, before there is an answer; the first class that fits counts.
BOTO_ERRORS: dict[type[BotoCoreError], Fate] = {
    SSLError: Fate(TransientTableError, "if this goes on, AWS_CA_BUNDLE must name the certificate that a proxy shows"),
    EndpointConnectionError: Fate(TransientTableError, ADDRESS),
    ResponseStreamingError: Fate(TransientTableError, ADDRESS),
    ConnectionError: Fate(TransientTableError, ADDRESS),
    HTTPClientError: Fate(TransientTableError, ADDRESS),
    CredentialRetrievalError: LATE,
    MetadataRetrievalError: LATE,
    NoCredentialsError: Fate(
        TableError,
        "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is given, such as by ECS",
    ),
    PartialCredentialsError: Fate(TableError, "give both the access key's id and its secret"),
    ProfileNotFound: Fate(TableError, "set AWS_PROFILE to one of `aws configure list-profiles`"),
    SSOError: Fate(TableError, "log in again, by `aws sso login`"),
    TokenRetrievalError: Fate(TableError, "log in again, by `aws sso login`"),
    LoginError: Fate(TableError, "log in again, by `aws login`"),
    InvalidRegionError: REGION,
    BaseEndpointResolverError: REGION,  # no region at all, too
    EndpointProviderError: REGION,
    BotoCoreError: Fate(
        TableError, "boto3 reads AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_DYNAMODB and others"
    ),
}


class Pace:
    """The waits of a thread whose calls are refused for want of capacity: growing, jittered, shorter after progress."""

    def __init__(self) -> None:
        self.stalled = 0  # calls in a row without progress
        self._doublings = 0

    def note(self, *, progress: bool) -> None:
        """Note whether a call got something done."""
        self.stalled = 0 if progress else self.stalled + 1
        self._doublings = min(max(self._doublings + (-1 if progress else 1), 0), MAX_DOUBLINGS)

    def draw_seconds(self) -> float:
        """Draw the next wait."""
        longest = min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**self._doublings)
        return random.uniform(longest / 2, longest)  # noqa: S311 (spreads waits)


class Table:
    """A market table, and at most `store_concurrency` calls to it in flight. Use it as a context manager.

    Args:
        name: of the table.
        store_concurrency: calls in flight at once.
        region_id: the one whose items are meant, in a table that several share; None if they have a table each.

    Raises:
        TableError: boto3's settings are wrong: no region, no credentials, no such profile.
        ValueError: `name` is no table name.
    """

    def __init__(self, name: str, store_concurrency: int, region_id: int | None = None) -> None:
        self.name = check_table_name(name)
        self.prefix = f"{region_id}#" if region_id else ""  # of its records' keys
        self.snapshot_key = f"{SNAPSHOT_KEY}#{region_id}" if region_id else SNAPSHOT_KEY
        self.store_concurrency = store_concurrency
        self.failures: Counter[str] = Counter()  # calls, and rests of batches, sent again in a run that ends well
        self.read_units = 0.0
        self.write_units = 0.0
        self.waits = Waits()
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._ending = threading.Event()
        self._threads = ThreadPoolExecutor(store_concurrency, thread_name_prefix="table")
        self._connection: Connection | None = None
        try:
            self._connect()
        except TransientTableError as error:
            self._note_failure(error)  # the first call connects, where Prefect retries it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.drain()
        if self._connection:
            self._connection.client.close()

    def drain(self) -> None:
        """Wait for the calls that are on their way, but not for capacity; nothing can be submitted any more."""
        self._ending.set()
        self._threads.shutdown(cancel_futures=True)

    @property
    def _client(self) -> "DynamoDBClient":
        return self._connect().client

    @property
    def is_local(self) -> bool:
        """Whether the table is on this machine, where it may be created without asking."""
        return is_this_machine(urlsplit(self._client.meta.endpoint_url).hostname or "")

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Runs `function` on one of the `store_concurrency` threads; it may make one call at a time."""
        return self._threads.submit(function, *args, **kwargs)

    def create(self) -> None:
        """Create the table with on-demand billing and wait until it can be used; fine if it is there already.

        Raises:
            TableError: DynamoDB refused.
        """
        try:
            self._ask(
                "create_table",
                TableName=self.name,
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except TransientTableError as error:
            if name_cause(error) != "ResourceInUseException":  # another run was quicker
                raise
        try:
            self._client.get_waiter("table_exists").wait(
                TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
            )
        except (ClientError, BotoCoreError) as error:
            raise TransientTableError(f"table {self.name} is not ready: {error}") from error

    def create_missing(self, error: MissingTableError) -> None:
        """Create the table, of which `error` says that it is not there, if it is to be on this machine.

        Raises:
            MissingTableError: it is to be elsewhere; with the command that creates it.
            TransientTableError: it is being created, or changed.
            TableError: DynamoDB refused.
        """
        status = self.read_status()
        if status in {"INACCESSIBLE_ENCRYPTION_CREDENTIALS", "ARCHIVING", "ARCHIVED"}:
            raise NO_KEY.explain(f"table {self.name} is {status}") from error
        if status:
            raise TransientTableError(f"table {self.name} cannot be used yet: it is {status}") from error
        if not self.is_local:
            raise MissingTableError(f"{error}; else create it with `{self.create_command()}`") from error
        self.create()

    def is_being_created(self) -> bool:
        """Return whether a table that cannot be read yet is on its way."""
        return self.read_status() == "CREATING"

    def read_status(self) -> str:
        """Return the table's status, in DynamoDB's words; empty if there is none, or it may not be seen.

        Raises:
            TransientTableError: see the module.
        """
        try:
            return str(self._ask("describe_table", TableName=self.name)["Table"]["TableStatus"])
        except TransientTableError:
            raise
        except TableError:
            return ""

    def create_command(self) -> str:
        """Gives the shell command that creates the table."""
        url = self._client.meta.endpoint_url
        endpoint = "" if url.endswith((".amazonaws.com", ".amazonaws.com.cn")) else f"--endpoint-url {url} "
        return (
            f"aws dynamodb create-table {endpoint}--region {self._client.meta.region_name} --table-name {self.name} "
            "--attribute-definitions AttributeName=pk,AttributeType=S --key-schema AttributeName=pk,KeyType=HASH "
            "--billing-mode PAY_PER_REQUEST"
        )

    def put(self, item: dict[str, str | float]) -> None:
        """Puts an item; a missing table on this machine is created.

        Args:
            item: with its key `pk`.

        Raises:
            MissingTableError: there is no such table, nor is it to be on this machine.
            TableError: see the module.
        """
        exact = {name: Decimal(repr(value)) if isinstance(value, float) else value for name, value in item.items()}
        attributes = {name: _serialize(value) for name, value in exact.items()}
        try:
            self._call("put_item", Pace(), TableName=self.name, Item=attributes)
        except MissingTableError as error:
            self.create_missing(error)
            self._call("put_item", Pace(), TableName=self.name, Item=attributes)

    def read_snapshot(self) -> Item | None:
        """Return the item `#snapshot` by a strongly consistent GetItem, None if the table has none.

        Raises:
            MissingTableError: there is no such table.
            TableError: see the module.
        """
        answer = self._call(
            "get_item", Pace(), TableName=self.name, Key={"pk": {"S": self.snapshot_key}}, ConsistentRead=True
        )
        item: Item | None = answer.get("Item")
        return item

    def write_snapshot(
        self,
        item: Item,
        condition: str,
        names: dict[str, str],
        values: Item,
        check: Callable[[], None],
        pace: Pace | None,
    ) -> None:
        """Put the item `#snapshot`.

        Args:
            item: under any key.
            condition: what must hold of the present one, in DynamoDB's own words.
            names: attributes' names by their place-holders in it.
            values: by their place-holders in it.
            check: is called before each call.
            pace: of the waits for capacity; None for a call that is not made again.

        Raises:
            ConditionError: it does not hold.
            TableError: see the module.
        """
        self._call(
            "put_item",
            pace,
            check,
            TableName=self.name,
            Item=with_key(item, self.snapshot_key),
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
        )

    def scan(self, expected_records: int) -> dict[str, Item]:
        """Gives all items but `#snapshot` by item type, strongly consistent, in as many segments as pay.

        Of a table that several regions share, DynamoDB reads all and gives this region's.

        Raises:
            TableError: see the module.
        """
        segments = min(self.store_concurrency, 1 + expected_records // SEGMENT_RECORDS)
        if self.prefix:
            segments = self.store_concurrency
        futures = [self.submit(self._scan_segment, segment, segments) for segment in range(segments)]
        items = {item["pk"]["S"]: item for item in chain.from_iterable(future.result() for future in futures)}
        if self.prefix:
            items = {
                pk.removeprefix(self.prefix): with_key(item, pk.removeprefix(self.prefix)) for pk, item in items.items()
            }
        items.pop(SNAPSHOT_KEY, None)
        return items

    def _scan_segment(self, segment: int, segments: int) -> list[Item]:
        items: list[Item] = []
        more: dict[str, Any] = {}
        pace = Pace()
        if self.prefix:
            more["FilterExpression"] = "begins_with(pk, :prefix)"
            more["ExpressionAttributeValues"] = {":prefix": {"S": self.prefix}}
        while True:
            answer = self._call(
                "scan",
                pace,
                TableName=self.name,
                ConsistentRead=True,
                Segment=segment,
                TotalSegments=segments,
                **more,
            )
            if "Items" not in answer:
                with self._lock:
                    self.failures["unreadable answer"] += 1
                raise TransientTableError(f"table {self.name}: the answer to a scan has no Items")
            items += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return items
            more["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def write_batch(self, requests: list[Item], check: Callable[[], None]) -> None:
        """Put and delete up to 25 items, and resend what DynamoDB refuses or leaves unprocessed, at the table's pace.

        Args:
            requests: as `put_request` and `delete_request` make them.
            check: is called before each call, and raises if it must not be made.

        Raises:
            ThrottledError: nothing was stored `STALLED_CALLS` times in a row.
            TableError: see the module.
        """
        if self.prefix:
            requests = [add_prefix(request, self.prefix) for request in requests]
        pace = Pace()
        while left := self._send_batch(requests, check):
            pace.note(progress=len(left) < len(requests))
            if not self._wait(pace):
                raise ThrottledError(
                    f"table {self.name}: {len(left)} writes, the first a {describe_request(left[0])}, were left "
                    f"unprocessed {pace.stalled} times in a row; its write capacity may be too small"
                )
            requests = left

    def _send_batch(self, requests: list[Item], check: Callable[[], None]) -> list[Item]:
        """Send writes once, and return those that are not stored."""
        try:
            answer = self._call("batch_write_item", None, check, RequestItems={self.name: requests})
        except ThrottledError:
            return requests
        left: list[Item] = (answer.get("UnprocessedItems") or {}).get(self.name) or []
        if left:
            with self._lock:
                self.failures["unprocessed items"] += 1
        return left

    def _wait(self, pace: Pace) -> bool:
        """Wait for capacity; return False at once if that has lasted too long, or if the table is being left."""
        if pace.stalled >= STALLED_CALLS or self._ending.is_set():
            return False
        begun = time.monotonic()
        self._ending.wait(pace.draw_seconds())
        self.waits.add(begun)
        return True

    def _call(
        self,
        name: str,
        pace: Pace | None,
        check: Callable[[], None] = lambda: None,
        **arguments: Any,  # noqa: ANN401 (an operation's own shape)
    ) -> Any:  # noqa: ANN401
        """Make a call, by the name of boto3's method, and count its units; make it again while it is throttled.

        Args:
            name: of the method.
            pace: of the waits for capacity; None for a call that is not made again.
            check: is called before each call, and raises if it must not be made.
            arguments: of the method.
        """
        while True:
            check()
            try:
                answer = self._ask(name, **arguments, ReturnConsumedCapacity="TOTAL")
            except ThrottledError:
                if pace is None:
                    raise
                pace.note(progress=False)
                if not self._wait(pace):
                    raise
            else:
                break
        if pace:
            pace.note(progress=True)
        units = sum_units(answer.get("ConsumedCapacity"))
        with self._lock:
            if attempts := answer["ResponseMetadata"].get("RetryAttempts", 0):
                self.failures["repeated by boto3"] += attempts
            if name in {"get_item", "scan"}:
                self.read_units += units
            else:
                self.write_units += units
        return answer

    def _ask(self, name: str, **arguments: Any) -> Any:  # noqa: ANN401 (an operation's own shape)
        try:
            connection = self._connect()
            load_credentials(connection.credentials.get_frozen_credentials)  # asks for new ones before these expire
            try:
                return getattr(connection.client, name)(**arguments)
            except (ClientError, BotoCoreError) as error:
                raise self._translate(error, connection) from error
        except TransientTableError as error:
            self._note_failure(error)
            raise

    def _connect(self) -> Connection:
        with self._connecting:
            if self._connection is None:
                self._connection = connect(self.store_concurrency)
            return self._connection

    def _note_failure(self, error: TransientTableError) -> None:
        with self._lock:
            self.failures[name_cause(error)] += 1
        if isinstance(error, CredentialsError):
            self._connection = None  # the next call gets new ones, if there are any

    def _translate(self, error: ClientError | BotoCoreError, connection: Connection) -> TableError:
        """Return the error of this module whose class says what becomes of a call."""
        if not isinstance(error, ClientError):
            return judge_boto(error).explain(f"table {self.name}: {error}")
        fate = judge(error)
        if fate.error is MissingTableError:
            region = connection.client.meta.region_name or "a region without a name"
            return fate.explain(f"table {self.name} does not exist in {region}")
        if fate.error is ConditionError:
            return ConditionError(f"table {self.name}: {self.snapshot_key} has been written by somebody else")
        if fate is EXPIRED and not isinstance(connection.credentials, RefreshableCredentials):
            fate = Fate(TableError, fate.advice)  # nobody renews them
        return fate.explain(f"table {self.name}: {error}")


def judge(error: ClientError) -> Fate:
    """Return what becomes of a call that was answered with an error."""
    code, message = (str(error.response["Error"].get(name, "")) for name in ("Code", "Message"))
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    by_status = THROTTLED if status == 429 else FAILURE if status >= 500 or status == 408 else MISTAKE
    fate = ERRORS.get(code, by_status)
    if fate.error is TableError and status >= 500:
        return FAILURE
    if fate.error is TableError:
        return next((said for phrase, said in PHRASES.items() if re.search(phrase, f"{code}: {message}")), fate)
    return fate


def judge_boto(error: BotoCoreError) -> Fate:
    """Return what becomes of a call for which boto3 got no answer."""
    return next(fate for kind, fate in BOTO_ERRORS.items() if isinstance(error, kind))


def name_cause(error: TableError) -> str:
    """Name what an error comes from in a word or two, to be counted."""
    cause = error.__cause__
    return str(cause.response["Error"]["Code"]) if isinstance(cause, ClientError) else type(cause or error).__name__


def sum_units(consumed: Any) -> float:  # noqa: ANN401 (one table's, a list of them, or null)
    """Return the units that a call consumed; 0 where the answer does not say."""
    parts = consumed if isinstance(consumed, list) else [consumed]
    return float(sum(part.get("CapacityUnits") or 0 for part in parts if part))


class Parsers(botocore.parsers.ResponseParserFactory):
    """Gives boto3 the parser of this module."""

    def create_parser(self, protocol_name: str) -> "Parser":  # type: ignore[override]
        """Gives a parser whose errors are read as boto3 does."""
        return Parser(super().create_parser(protocol_name))


class Parser:
    """Reads DynamoDB's answers: what comes as JSON is what boto3 gives, which takes it apart value by value.

    Args:
        errors: reads the answers that are errors.
    """

    def __init__(self, errors: botocore.parsers.ResponseParser) -> None:
        self._errors = errors

    def parse(self, response: dict[str, Any], shape: Any) -> dict[str, Any]:  # noqa: ANN401 (botocore's own)
        """Gives an answer as boto3 does.

        Raises:
            ResponseStreamingError: it says that all went well, but not how: its body is no JSON object.
        """
        if response["status_code"] != 200:
            parsed: dict[str, Any] = self._errors.parse(response, shape)
            return parsed
        try:
            answer = msgspec.json.decode(response["body"], type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ResponseStreamingError(error=f"the answer cannot be read: {error}") from error
        given = {name: value for name, value in answer.items() if value is not None}
        return given | {"ResponseMetadata": {"HTTPStatusCode": response["status_code"]}}


def connect(store_concurrency: int) -> Connection:
    """Open a client as boto3 finds its settings.

    Raises:
        CredentialsError: whoever issues the credentials gave none.
        TableError: a setting is wrong, or missing.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 2},  # more of them are Prefect's, where they can be seen
        max_pool_connections=store_concurrency + 2,  # the flow's own calls, and the lease's
        parameter_validation=False,  # a third of a write's CPU, for shapes that are made here
        connect_timeout=3,  # a write begun at a lease's last safe moment ends before the lease does: see `tasks.table.lease`
        read_timeout=8,
    )
    session = botocore.session.get_session()
    session.register_component("data_loader", _api_descriptions)
    session.register_component("response_parser_factory", Parsers())
    credentials = load_credentials(session.get_credentials)
    if credentials is None:
        missing = NoCredentialsError()
        fate = LATE if has_metadata(session) else judge_boto(missing)
        raise fate.explain(str(missing)) from missing
    try:
        client = boto3.session.Session(botocore_session=session).client("dynamodb", config=config)
    except BotoCoreError as error:
        raise judge_boto(error).explain(str(error)) from error
    except ValueError as error:
        raise TableError(
            f"{error}; AWS_ENDPOINT_URL_DYNAMODB must be an address such as http://127.0.0.1:8000"
        ) from error
    return Connection(client, credentials)


def load_credentials(load: Callable[[], R]) -> R:
    """Return what a function of botocore returns that asks for credentials.

    Raises:
        CredentialsError: whoever issues them did not answer, or not with credentials.
        TableError: a setting is wrong, or whoever issues them refuses.
    """
    try:
        return load()
    except ClientError as error:  # STS's or IAM Identity Center's
        may_pass = issubclass(judge(error).error, TransientTableError)
        fate = Fate(CredentialsError if may_pass else TableError, "may you use this role, or this profile?")
        raise fate.explain(f"AWS credentials: {error}") from error
    except BotoCoreError as error:
        raise judge_boto(error).explain(f"AWS credentials: {error}") from error
    except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        is_setting = isinstance(error, OSError) or type(error) is ValueError  # a file, or an address
        fate = judge_boto(BotoCoreError()) if is_setting else LATE
        raise fate.explain(f"AWS credentials: {type(error).__name__}: {error}") from error


def has_metadata(session: botocore.session.Session) -> bool:
    """Return whether this machine has a metadata service, as one in a cloud does, whose credentials may come late."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    config = {
        "ec2_metadata_service_endpoint": session.get_config_variable("ec2_metadata_service_endpoint"),
        "ec2_metadata_service_endpoint_mode": resolve_imds_endpoint_mode(session),
    }
    address = urlsplit(IMDSFetcher(config=config).get_base_url())
    try:
        socket.create_connection((address.hostname or "", address.port or 80), METADATA_SECONDS).close()
    except OSError:
        return False
    return True


def check_table_name(name: str) -> str:
    """Gives `name` back.

    Raises:
        ValueError: DynamoDB takes no such name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", name):
        raise ValueError(f"table_name is {name!r}: give 3 to 255 letters, digits and _ . -")
    return name


def describe_request(request: Item) -> str:
    """Names a write request in messages: `put of 34`."""
    if "PutRequest" in request:
        return f"put of {request['PutRequest']['Item']['pk']['S']}"
    return f"delete of {request['DeleteRequest']['Key']['pk']['S']}"


def put_request(item: Item) -> Item:
    """Gives the request that puts an item."""
    return {"PutRequest": {"Item": item}}


def delete_request(pk: str) -> Item:
    """Gives the request that deletes the item of a key."""
    return {"DeleteRequest": {"Key": {"pk": {"S": pk}}}}


def with_key(item: Item, pk: str) -> Item:
    """Gives an item under another key."""
    return item | {"pk": {"S": pk}}


def add_prefix(request: Item, prefix: str) -> Item:
    """Gives the request that puts or deletes the item whose key has a prefix."""
    if "PutRequest" in request:
        item = request["PutRequest"]["Item"]
        return put_request(with_key(item, prefix + item["pk"]["S"]))
    return delete_request(prefix + request["DeleteRequest"]["Key"]["pk"]["S"])


def batches(writes: list[W]) -> Iterable[list[W]]:
    """Cuts writes into batches of at most 25."""
    return (writes[start : start + BATCH_ITEMS] for start in range(0, len(writes), BATCH_ITEMS))
