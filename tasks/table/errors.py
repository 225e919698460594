"""Errors from DynamoDB: the class says what happens next, the message what to do.

TableError
├── TransientTableError
│   ├── ThrottledError
│   └── CredentialsError
├── MissingTableError
├── KeySchemaError
└── ConditionError
"""

import re
from typing import NamedTuple

from botocore import exceptions as boto


class TableError(Exception):
    """The table refused, or could not be reached."""

    tried = "It was not retried: a retry would be refused too."  # before the run failed
    advice = "See the message."  # what to do


class TransientTableError(TableError):
    """A broken connection, a conflict or DynamoDB's own failure: may pass."""

    tried = "It was retried with exponential backoff."
    advice = "Nothing if it passes: the next run writes the rest. Otherwise see the message."


class ThrottledError(TransientTableError):
    """The capacity of the table or the account is used up: calls wait for it before Prefect retries."""

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


# What to do about a failed call, and the error codes that mean it, by the error to raise: codes of DynamoDB's service
# model, those common to AWS's services, and KMS's, which DynamoDB passes on.
CODES: dict[type[TableError], dict[str, str]] = {
    ThrottledError: {
        "if this goes on, give the table more capacity or on-demand billing": (
            "ProvisionedThroughputExceededException ThrottlingException Throttling ThrottledException RequestThrottled "
            "RequestThrottledException TooManyRequestsException SlowDown BandwidthLimitExceeded"
        ),
        "the account's quota is used up; its other programs count too": "RequestLimitExceeded",
    },
    TransientTableError: {
        "DynamoDB's own failure": (
            "InternalServerError InternalServerException InternalFailure InternalError ServiceUnavailable "
            "ServiceUnavailableException RequestTimeout RequestTimeoutException RequestAbortedException "
            "PriorRequestNotComplete IDPCommunicationError InvalidIdentityToken"  # the last two from STS
        ),
        "the item or the table is being changed": (
            "ReplicatedWriteConflictException TransactionConflictException TransactionInProgressException "
            "ResourceInUseException TableInUseException BackupInUseException LimitExceededException"
        ),
        "this machine's clock is minutes off: set it, such as by NTP": (
            "RequestExpired RequestTimeTooSkewed RequestInTheFuture"
        ),
        "the table's KMS key cannot be used at the moment": (
            "KMSInternalException KMSThrottlingException KeyUnavailableException DependencyTimeoutException"
        ),
    },
    CredentialsError: {
        "AWS does not know the access key or its session: new ones take some seconds to propagate; otherwise set keys "
        "of an account for which the region is enabled": "UnrecognizedClientException InvalidClientTokenId",
        "the session has expired: get new credentials, such as by `aws sso login`": (
            "ExpiredTokenException ExpiredToken"
        ),
    },
    MissingTableError: {
        "if it is in another region or account, set AWS_DEFAULT_REGION or AWS_PROFILE": (
            "ResourceNotFoundException TableNotFoundException"
        ),
    },
    ConditionError: {"": "ConditionalCheckFailedException"},
    TableError: {
        "remove the table's local secondary indexes, or give another table_name": (
            "ItemCollectionSizeLimitExceededException"
        ),
        "deployments/aws/iam-policy.json has what the role needs: is this table among its resources, and does no other "
        "policy deny it?": "AccessDeniedException AccessDenied NotAuthorized UnauthorizedOperation",
        "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID: set both again": (
            "InvalidSignatureException SignatureDoesNotMatch"
        ),
        "the signature did not arrive: a proxy must not change the headers": (
            "IncompleteSignature IncompleteSignatureException MissingAuthenticationToken "
            "MissingAuthenticationTokenException"
        ),
        "enable DynamoDB and the region for the account": "OptInRequired SubscriptionRequiredException",
        "the role cannot use the table's KMS key: enable the key, and allow the role kms:Decrypt and kms:DescribeKey, "
        "as deployments/aws/iam-policy.json does, in the key's own policy too": (
            "KMSAccessDeniedException KMSDisabledException KMSInvalidStateException KMSNotFoundException "
            "KMSOptInRequired"
        ),
        "DynamoDB should not refuse this request: is the address in AWS_ENDPOINT_URL_DYNAMODB DynamoDB's?": (
            "ValidationException"  # and all that are not here, by their HTTP status: mistakes, and unused operations
        ),
    },
}
ERRORS = {
    code: Fate(error, advice)
    for error, advices in CODES.items()
    for advice, codes in advices.items()
    for code in codes.split()
}
EXPIRED = ERRORS["ExpiredToken"]
LATE = Fate(
    CredentialsError, "the machine's or container's credential service gave none: check that its role still exists"
)
NO_KEY = ERRORS["KMSNotFoundException"]
# By message, where the code alone would be final; the first match counts.
PHRASES = {
    r"\bkms:|\bKMS|Key Management Service": NO_KEY,
    "Signature expired|Signature not yet current": ERRORS["RequestExpired"],
    "Credential should be scoped": Fate(
        TableError, "AWS_DEFAULT_REGION, or the profile's region, is not the endpoint's: set it to the endpoint's"
    ),
    "key element does not match|conditions on the keys": Fate(
        KeySchemaError, "its keys do not match the parameter key: give the other key, or another table_name"
    ),
}
# boto3's own errors, when there is no response; the first matching class counts.
BOTO_ERRORS: dict[type[boto.BotoCoreError] | tuple[type[boto.BotoCoreError], ...], Fate] = {
    boto.SSLError: Fate(TransientTableError, "if this goes on, set AWS_CA_BUNDLE to the proxy's certificate"),
    (boto.ConnectionError, boto.HTTPClientError): Fate(
        TransientTableError, "if this goes on, check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_DYNAMODB"
    ),
    (boto.CredentialRetrievalError, boto.MetadataRetrievalError): LATE,
    boto.NoCredentialsError: Fate(
        TableError,
        "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with a role, such as on ECS",
    ),
    boto.PartialCredentialsError: Fate(TableError, "give both the access key's id and its secret"),
    boto.ProfileNotFound: Fate(TableError, "set AWS_PROFILE to one of `aws configure list-profiles`"),
    (boto.SSOError, boto.TokenRetrievalError): Fate(TableError, "log in again with `aws sso login`"),
    boto.LoginError: Fate(TableError, "log in again with `aws login`"),
    # The second also if there is no region.
    (boto.InvalidRegionError, boto.BaseEndpointResolverError, boto.EndpointProviderError): Fate(
        TableError,
        "set AWS_DEFAULT_REGION to an AWS region (not EVE's), such as us-east-1; `make shell` sets it for the local "
        "store",
    ),
    boto.BotoCoreError: Fate(TableError, "check AWS_PROFILE, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_DYNAMODB"),
}


def find_fate(error: boto.ClientError | boto.BotoCoreError) -> Fate:
    """Return the fate of a call that DynamoDB refused, or that got no response."""
    if isinstance(error, boto.BotoCoreError):
        return next(fate for kinds, fate in BOTO_ERRORS.items() if isinstance(error, kinds))
    code, message = (str(error.response["Error"].get(name, "")) for name in ("Code", "Message"))
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    is_failure = status >= 500 or status == 408
    alike = "ThrottlingException" if status == 429 else "InternalServerError" if is_failure else "ValidationException"
    fate = ERRORS.get(code, ERRORS[alike])  # codes that are not in the table have the fate of their HTTP status
    if fate.error is not TableError:
        return fate
    if status >= 500:
        return ERRORS[alike]
    return next((other for phrase, other in PHRASES.items() if re.search(phrase, f"{code}: {message}")), fate)


def name_cause(error: TableError) -> str:
    """Return an error's cause in a word or two, for the counts."""
    cause = error.__cause__ or error
    return str(cause.response["Error"]["Code"]) if isinstance(cause, boto.ClientError) else type(cause).__name__
