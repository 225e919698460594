"""Errors from DynamoDB: the class says what happens next, the message what to do."""

import re
from typing import NamedTuple

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


class TableError(Exception):
    """The table refused, or could not be reached."""

    tried = "It was not retried: a retry would be refused too."  # before the run failed
    advice = "See the message."  # what to do


class TransientTableError(TableError):
    """A broken connection, a conflict or DynamoDB's own failure: may pass."""

    tried = "It was retried with exponential backoff."
    advice = "Nothing if it passes: the next run writes the rest. Otherwise see the message."


class ThrottledError(TransientTableError):
    """The capacity of the table or the account is used up for now."""

    advice = "Nothing if it was a short spike: the next run writes the rest. Otherwise raise the table's capacity."


class CredentialsError(TransientTableError):
    """The credentials are late, or have not propagated yet: the next attempt loads new ones."""

    advice = "See the message: check the credentials' issuer, or the keys."


class MissingTableError(TableError):
    """There is no such table."""

    tried = "Nothing was fetched."
    advice = "Create the table with the command in the message."


class KeySchemaError(TableError):
    """The table's key schema does not match the parameter `key`."""

    tried = "Nothing was fetched."
    advice = "Give the other `key`, or another `table_name`."


class ConditionError(TableError):
    """The item has changed since it was read."""


class Fate(NamedTuple):
    """What a failed call raises, and why."""

    error: type[TableError]
    advice: str  # why, or what to do

    def explain(self, what: str) -> TableError:
        """Return the error, with what happened and the advice."""
        return self.error(f"{what.rstrip(' .')}; {self.advice}")


THROTTLED = Fate(ThrottledError, "if this goes on, give the table more capacity or on-demand billing")
QUOTA = Fate(ThrottledError, "the account's quota is used up; its other programs count too")
FAILURE = Fate(TransientTableError, "DynamoDB's own failure")
BUSY = Fate(TransientTableError, "the item or the table is being changed")
DENIED = Fate(
    TableError,
    "deployments/aws/iam-policy.json has what the role needs: is this table among its resources, and does no other "
    "policy deny it?",
)
NO_KEY = Fate(
    TableError,
    "the role cannot use the table's KMS key: enable the key, and allow the role kms:Decrypt and kms:DescribeKey, as "
    "deployments/aws/iam-policy.json does, in the key's own policy too",
)
KEY_BUSY = Fate(TransientTableError, "the table's KMS key cannot be used at the moment")
UNKNOWN_KEYS = Fate(
    CredentialsError,
    "AWS does not know the access key or its session: new ones take some seconds to propagate; otherwise set keys of "
    "an account for which the region is enabled",
)
EXPIRED = Fate(CredentialsError, "the session has expired: get new credentials, such as by `aws sso login`")
WRONG_SECRET = Fate(TableError, "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID: set both again")
UNSIGNED = Fate(TableError, "the signature did not arrive: a proxy must not change the headers")
CLOCK = Fate(TransientTableError, "this machine's clock is minutes off: set it, such as by NTP")
NOT_ENABLED = Fate(TableError, "enable DynamoDB and the region for the account")
MISSING = Fate(MissingTableError, "if it is in another region or account, set AWS_DEFAULT_REGION or AWS_PROFILE")
FULL = Fate(TableError, "remove the table's local secondary indexes, or give another table_name")
MISTAKE = Fate(
    TableError, "DynamoDB should not refuse this request: is the address in AWS_ENDPOINT_URL_DYNAMODB DynamoDB's?"
)
# By error code: all of DynamoDB's service model, those common to AWS's services, and KMS's, which DynamoDB passes on.
# Other codes are judged by their HTTP status.
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
    # transient
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
    "IDPCommunicationError": FAILURE,  # from STS, like the next
    "InvalidIdentityToken": FAILURE,  # the token file is read again
    "ReplicatedWriteConflictException": BUSY,  # a write in another region of a global table
    "TransactionConflictException": BUSY,
    "TransactionInProgressException": BUSY,
    "ResourceInUseException": BUSY,  # being created, updated or deleted, like the next three
    "TableInUseException": BUSY,
    "BackupInUseException": BUSY,
    "LimitExceededException": BUSY,  # on tables being created or changed at once
    # the table's state
    "ResourceNotFoundException": MISSING,
    "TableNotFoundException": MISSING,
    "ConditionalCheckFailedException": Fate(ConditionError, ""),
    "ItemCollectionSizeLimitExceededException": FULL,
    # the caller
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
    # the request, or the endpoint
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
    # operations that this program does not use: transactions, PartiQL, indexes, policies, backups, exports, replicas
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
# By message, where the code alone would be final; the first match counts.
PHRASES: dict[str, Fate] = {
    r"\bkms:|\bKMS|Key Management Service": NO_KEY,
    "Signature expired|Signature not yet current": CLOCK,
    "Credential should be scoped": Fate(
        TableError, "AWS_DEFAULT_REGION, or the profile's region, is not the endpoint's: set it to the endpoint's"
    ),
    "key element does not match|conditions on the keys": Fate(
        KeySchemaError,
        "its keys do not match the parameter key: give the other key, or another table_name",
    ),
}
ADDRESS = "if this goes on, check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_DYNAMODB"
LATE = Fate(
    CredentialsError, "the machine's or container's credential service gave none: check that its role still exists"
)
REGION = Fate(
    TableError,
    "set AWS_DEFAULT_REGION to an AWS region (not EVE's), such as us-east-1; `make shell` sets it for the local store",
)
# boto3's own errors, when there is no response; the first matching class counts.
BOTO_ERRORS: dict[type[BotoCoreError], Fate] = {
    SSLError: Fate(TransientTableError, "if this goes on, set AWS_CA_BUNDLE to the proxy's certificate"),
    EndpointConnectionError: Fate(TransientTableError, ADDRESS),
    ResponseStreamingError: Fate(TransientTableError, ADDRESS),
    ConnectionError: Fate(TransientTableError, ADDRESS),
    HTTPClientError: Fate(TransientTableError, ADDRESS),
    CredentialRetrievalError: LATE,
    MetadataRetrievalError: LATE,
    NoCredentialsError: Fate(
        TableError,
        "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with a role, such as on ECS",
    ),
    PartialCredentialsError: Fate(TableError, "give both the access key's id and its secret"),
    ProfileNotFound: Fate(TableError, "set AWS_PROFILE to one of `aws configure list-profiles`"),
    SSOError: Fate(TableError, "log in again with `aws sso login`"),
    TokenRetrievalError: Fate(TableError, "log in again with `aws sso login`"),
    LoginError: Fate(TableError, "log in again with `aws login`"),
    InvalidRegionError: REGION,
    BaseEndpointResolverError: REGION,  # also if there is none
    EndpointProviderError: REGION,
    BotoCoreError: Fate(TableError, "check AWS_PROFILE, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_DYNAMODB"),
}


def judge(error: ClientError) -> Fate:
    """Return the fate of a call that DynamoDB refused."""
    code, message = (str(error.response["Error"].get(name, "")) for name in ("Code", "Message"))
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    by_status = THROTTLED if status == 429 else FAILURE if status >= 500 or status == 408 else MISTAKE
    fate = ERRORS.get(code, by_status)
    if fate.error is TableError and status >= 500:
        return FAILURE
    if fate.error is TableError:
        return next((other for phrase, other in PHRASES.items() if re.search(phrase, f"{code}: {message}")), fate)
    return fate


def judge_boto(error: BotoCoreError) -> Fate:
    """Return the fate of a call that got no response."""
    return next(fate for kind, fate in BOTO_ERRORS.items() if isinstance(error, kind))


def name_cause(error: TableError) -> str:
    """Return an error's cause in a word or two, for the counts."""
    cause = error.__cause__
    return str(cause.response["Error"]["Code"]) if isinstance(cause, ClientError) else type(cause or error).__name__
