"""DynamoDB's errors: which are transient, and what to do about the others."""

import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.retries.standard import ExponentialBackoff

from deployments.local.environment import CHECKOUT
from tasks.table.client import Table
from tasks.table.errors import (
    ERRORS,
    ConditionError,
    KeySchemaError,
    MissingTableError,
    TableError,
    ThrottledError,
    TransientTableError,
    find_fate,
)
from tests.support.faults.plan import Fault, Plan
from tests.support.faults.store import ERRORS as ERRORS_OF_STORE
from tests.support.faults.store import serve_faulty_store


def answer_with(status: int, code: str, message: str) -> ClientError:
    """Return boto3's error for a response of DynamoDB's."""
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetItem")


MAY_PASS = {
    *("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"),
    *("InternalServerError", "InternalFailure", "ServiceUnavailable", "RequestTimeoutException"),
    *("ReplicatedWriteConflictException", "TransactionConflictException", "TransactionInProgressException"),
    *("ResourceInUseException", "TableInUseException", "BackupInUseException", "LimitExceededException"),
    *("UnrecognizedClientException", "ExpiredTokenException", "RequestExpired"),
}


MODEL = botocore.session.get_session().get_service_model("dynamodb")
MISTAKES = {
    *("ValidationError", "SerializationException", "UnknownOperationException", "InvalidAction"),
    *("InvalidParameterCombination", "InvalidParameterValue", "InvalidQueryParameter", "MissingAction"),
    *("MissingParameter", "MalformedHttpRequestException", "MalformedQueryString", "RequestEntityTooLargeException"),
}
CODES = sorted(ERRORS.keys() | {shape.name for shape in MODEL.error_shapes} | MISTAKES)


def test_documented_errors_that_may_pass_are_retried() -> None:
    """Of all errors of boto3's service model of DynamoDB, exactly these are transient."""
    found = {code for code, fate in ERRORS.items() if issubclass(fate.error, TransientTableError)}
    assert found >= MAY_PASS
    of_model = {shape.name for shape in MODEL.error_shapes}
    may_pass = {
        code for code in of_model if issubclass(find_fate(answer_with(400, code, "")).error, TransientTableError)
    }
    assert may_pass == MAY_PASS & of_model
    assert (ERRORS["ResourceNotFoundException"].error, ERRORS["ConditionalCheckFailedException"].error) == (
        MissingTableError,
        ConditionError,
    )


@pytest.mark.parametrize("status", [400, 409])
@pytest.mark.parametrize("code", CODES)
def test_errors_are_raised_as_the_table_says(
    store_url: str, table: Table, monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    """Over a socket, each error has the class and the advice of the table, and its code in the message.

    A code that the table lacks counts as a mistake. Only expired keys from the environment are final.
    """
    monkeypatch.setitem(ERRORS_OF_STORE, "denied", (status, code))
    monkeypatch.setattr("tasks.table.pace.STALLED_CALLS", 0)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)
    with serve_faulty_store(store_url, Plan([Fault("denied", times=99)])) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        with Table(table.name, 1) as opened, pytest.raises(TableError, match=f"table {table.name}") as caught:
            opened.read_snapshot()
    fate = ERRORS.get(code, ERRORS["ValidationException"])
    expected = TableError if code.startswith("ExpiredToken") else fate.error
    assert type(caught.value) is expected
    if expected not in {MissingTableError, ConditionError}:
        assert f"({code}) " in str(caught.value)
        assert str(caught.value).endswith(f"planned; {fate.advice}")
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
        "AWS_DEFAULT_REGION, or the profile's region, is not the endpoint's: set",
    ),
    (
        400,
        "ValidationException",
        "The provided key element does not match",
        KeySchemaError,
        "keys do not match the parameter key",
    ),
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
    """A code with several meanings is judged by its message, an unknown code by its status."""
    fate = find_fate(answer_with(status, code, message))
    assert fate.error is error
    assert re.search(advice, fate.advice)


def test_policy_has_what_the_advice_names() -> None:
    """The policy that the advice refers to has the actions that the advice names."""
    policy = Path(CHECKOUT, "deployments/aws/iam-policy.json").read_text()
    for fate in ERRORS.values():
        for action in re.findall(r"kms:\w+|dynamodb:\w+", fate.advice if "iam-policy" in fate.advice else ""):
            assert f'"{action}"' in policy
