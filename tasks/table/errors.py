"""What goes wrong with a table; what happens next is in the error's class."""

import re
from typing import TYPE_CHECKING, NamedTuple

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

if TYPE_CHECKING:
    pass


class TableError(Exception):
    """The table, or the way to it, refused."""

    tried = "Once: a retry would be refused as well."  # before it ended the run
    advice = "What the message says."  # what to do


class TransientTableError(TableError):
    """A broken connection, a conflict or DynamoDB's own failure: may pass."""

    tried = "It was retried, after growing waits."
    advice = "Nothing, if it passes: the next run writes the rest. Otherwise what the message says."


class ThrottledError(TransientTableError):
    """The capacity of the table or the account is used up: it comes back with time."""

    advice = (
        "Nothing, if it was a spell of throttling: the next run writes the rest. Otherwise raise the table's capacity."
    )


class CredentialsError(TransientTableError):
    """The credentials are late, or not known everywhere yet: new ones are asked for at the next attempt."""

    advice = "What the message says: look at who issues the credentials, or at the keys."


class MissingTableError(TableError):
    """There is no such table."""

    tried = "Nothing was fetched."
    advice = "Create the table, with the command in the message."


class KeySchemaError(TableError):
    """The table has other keys than the parameter `key` asks for."""

    tried = "Nothing was fetched."
    advice = "Give the other `key`, or another `table_name`."


class ConditionError(TableError):
    """The item is not as it was when it was read: somebody else has written it."""


class Fate(NamedTuple):
    """What becomes of a call that failed."""

    error: type[TableError]
    advice: str  # why, or what to do

    def explain(self, what: str) -> TableError:
        """Return the error: what happened, and the advice."""
        return self.error(f"{what.rstrip(' .')}; {self.advice}")


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
        KeySchemaError,
        "its keys are not those that the parameter key asks for: give the other key, or another table_name",
    ),
}
ADDRESS = "if this goes on, check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_DYNAMODB"
LATE = Fate(
    CredentialsError, "what issues this machine's or container's credentials gave none; is its role still there?"
)
REGION = Fate(
    TableError,
    "set AWS_DEFAULT_REGION to AWS's region (not EVE's), such as us-east-1; `make shell` sets it for the local store",
)
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
