"""The connection to DynamoDB, with boto3's credentials and settings."""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
import msgspec
from botocore import exceptions as boto
from botocore import parsers
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.utils import IMDSFetcher, resolve_imds_endpoint_mode

import tasks.table.errors as errors  # noqa: PLR0402 (the package imports this module: no circle)
from tasks.network import is_this_machine
from tasks.table.requests import SNAPSHOT_KEY, Item

_api_descriptions = botocore.loaders.create_loader()  # read once per process: it takes longer than a small run's calls

R = TypeVar("R")


class Opened(NamedTuple):
    """A client and its credentials."""

    client: BaseClient
    credentials: Credentials


class Connection:
    """A connection to DynamoDB for one table or several, configured by boto3's settings.

    It opens at the first call, and reopens with new credentials after a `CredentialsError`.

    Args:
        store_concurrency: submitted calls in flight at once; runs and their leases make some calls besides.
    """

    def __init__(self, store_concurrency: int) -> None:
        self.threads = ThreadPoolExecutor(store_concurrency, thread_name_prefix="table")
        self._lock = threading.Lock()
        self._opened: Opened | None = None

    def open(self) -> Opened:
        """Return the open client; connect first if there is none."""
        with self._lock:
            if self._opened is None:
                self._opened = connect()
            return self._opened

    def close(self) -> None:
        """Wait for the calls in flight, then close the connections."""
        self.threads.shutdown(cancel_futures=True)
        if self._opened:
            self._opened.client.close()

    @property
    def is_local(self) -> bool:
        """Whether the store is on this machine, so that missing tables are created."""
        return is_this_machine(urlsplit(self.open().client.meta.endpoint_url).hostname or "")

    def call(
        self, table_name: str, operation: str, check: Callable[[], None] = lambda: None, **arguments: object
    ) -> Item:
        """Make one call by the name of boto3's method; `check` may stop it, at the last moment."""
        try:
            opened = self.open()
            load_credentials(opened.credentials.get_frozen_credentials)  # refreshes them before they expire
            check()
            try:
                answer: Item = getattr(opened.client, operation)(**arguments)
            except (boto.ClientError, boto.BotoCoreError) as error:
                raise translate(error, f"table {table_name}", opened) from error
        except errors.CredentialsError:
            self._opened = None  # the next call gets new ones
            raise
        return answer


def open_connection(store_concurrency: int) -> closing[Connection]:
    """Open a connection for several runs, and close it at the end of the block."""
    return closing(Connection(store_concurrency))


def translate(error: boto.ClientError | boto.BotoCoreError, what: str, opened: Opened) -> errors.TableError:
    """Return this package's error for one of boto3's."""
    fate = errors.find_fate(error)
    if fate.error is errors.MissingTableError:
        return fate.explain(f"{what} does not exist in {opened.client.meta.region_name}")
    if fate.error is errors.ConditionError:
        return fate.error(f"{what}: its item {SNAPSHOT_KEY} was written by another run or program")
    if fate == errors.EXPIRED and not isinstance(opened.credentials, RefreshableCredentials):
        fate = errors.Fate(errors.TableError, fate.advice)  # static credentials are not renewed
    return fate.explain(f"{what}: {error}")


class Parser(parsers.JSONParser):
    """Parses DynamoDB's responses: the JSON already has the shape that botocore builds value by value."""

    def parse(self, response: Mapping[str, Any], shape: Any) -> Any:  # noqa: ANN401 (botocore's own)
        """Return a response in boto3's shape; leave error responses to botocore."""
        if response["status_code"] != 200:
            return super().parse(response, shape)
        try:
            answer = msgspec.json.decode(response["body"], type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise boto.ResponseStreamingError(error=f"the response cannot be read: {error}") from error
        given = {name: value for name, value in answer.items() if value is not None}
        return given | {"ResponseMetadata": {"HTTPStatusCode": response["status_code"]}}


class Parsers(parsers.ResponseParserFactory):
    """Makes botocore use this module's parser for DynamoDB; not for STS, which answers in XML."""

    def create_parser(self, protocol_name: str) -> parsers.ResponseParser:
        """Return the parser for a service's protocol."""
        return Parser() if protocol_name == "json" else super().create_parser(protocol_name)


def connect() -> Opened:
    """Open a client with boto3's settings; raise a TableError if one is wrong, or if there are no credentials."""
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 2},  # further retries are Prefect's, where they can be seen
        max_pool_connections=1_000,  # to keep open: the callers' threads limit them
        parameter_validation=False,  # it would take a third of a write's CPU
        connect_timeout=3,  # a write that starts at a lease's last safe moment ends before the lease: see `lease`
        read_timeout=8,
    )
    session = botocore.session.get_session()
    session.register_component("data_loader", _api_descriptions)
    session.register_component("response_parser_factory", Parsers())
    credentials = load_credentials(session.get_credentials)
    if credentials is None:
        missing = boto.NoCredentialsError()
        raise (errors.LATE if has_metadata(session) else errors.find_fate(missing)).explain(str(missing)) from missing
    try:
        return Opened(boto3.session.Session(botocore_session=session).client("dynamodb", config=config), credentials)
    except boto.BotoCoreError as error:
        raise errors.find_fate(error).explain(str(error)) from error
    except ValueError as error:
        raise errors.TableError(
            f"{error}; AWS_ENDPOINT_URL_DYNAMODB must be an address such as http://127.0.0.1:8000"
        ) from error


def load_credentials(load: Callable[[], R]) -> R:
    """Call a botocore function that loads credentials.

    Raises:
        CredentialsError: their issuer did not respond, or not with credentials.
        TableError: a setting is wrong, or the issuer refused.
    """
    try:
        return load()
    except boto.ClientError as error:  # from STS or IAM Identity Center
        may_pass = issubclass(errors.find_fate(error).error, errors.TransientTableError)
        kind = errors.CredentialsError if may_pass else errors.TableError
        advice = "check that you may use this role or profile"
        raise errors.Fate(kind, advice).explain(f"AWS credentials: {error}") from error
    except boto.BotoCoreError as error:
        raise errors.find_fate(error).explain(f"AWS credentials: {error}") from error
    except (LookupError, OSError, parsers.ResponseParserError, RuntimeError, TypeError, ValueError) as error:
        is_setting = isinstance(error, OSError) or type(error) is ValueError  # a file or a URL
        fate = errors.find_fate(boto.BotoCoreError()) if is_setting else errors.LATE
        raise fate.explain(f"AWS credentials: {type(error).__name__}: {error}") from error


def has_metadata(session: botocore.session.Session) -> bool:
    """Return whether this machine has a metadata service, as in a cloud: its credentials may come late."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    config = {
        "ec2_metadata_service_endpoint": session.get_config_variable("ec2_metadata_service_endpoint"),
        "ec2_metadata_service_endpoint_mode": resolve_imds_endpoint_mode(session),
    }
    address = urlsplit(IMDSFetcher(config=config).get_base_url())
    try:
        socket.create_connection((address.hostname or "", address.port or 80), timeout=1).close()
    except OSError:
        return False
    return True
