"""Create DynamoDB tables, each with the settings that deployments/aws/market-data.yaml gives its own.

Tables that are there already are left with their records; the settings that they lack are switched on.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import TypeAdapter, ValidationError

from flows.parameters import RegionId, TableTemplate
from tasks.catalogue.names import list_regions
from tasks.table.errors import TableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef

CONCURRENCY = 50  # tables at once: a tenth of what DynamoDB lets an account create, change and delete at a time
PATIENCE_SECONDS = 900.0  # for all of them
POLL_SECONDS = 1.0
MAX_WAIT_SECONDS = 10.0
PASSING_CODES = {
    "ContinuousBackupsUnavailableException",  # of a table that is still new
    "InternalServerError",
    "LimitExceededException",  # 500 tables are being created, changed or deleted
    "RequestLimitExceeded",
    "ResourceInUseException",  # the table is still being changed
    "ServiceUnavailable",
    "ThrottlingException",
}
PLACE = "{region_id}"


class Outcome(NamedTuple):
    """What became of a table that was asked for."""

    name: str
    state: Literal["created", "there already", "unfit", "failed"]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([f"{self.name}: {self.state}", *self.notes])


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code: 1 if a table is missing or unfit, 2 if a name is wrong."""
    parser = argparse.ArgumentParser("python -m deployments.tables", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="TABLE", help=f"a name; {PLACE} in it is filled in")
    parser.add_argument("--regions", nargs="+", default=[], metavar="REGION", help="all, or regions' ids")
    given = parser.parse_args(arguments)
    try:
        names = fill_in_regions(given.names, given.regions)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201 (a command's answer)
        return 2
    try:
        return create_tables(names)
    except BotoCoreError as error:
        print(f"no tables: {error} (boto3 reads AWS_PROFILE, AWS_DEFAULT_REGION …)", file=sys.stderr)  # noqa: T201
        return 1


def fill_in_regions(names: Sequence[str], regions: Sequence[str]) -> list[str]:
    """Return the tables' names, each once.

    Raises:
        ValueError: one of them is no table name, a region no region's id, or one has no use for the other.
    """
    for name in names:
        check("TABLE", TableTemplate, name)
    given = [] if regions == ["all"] else regions
    for region in given:
        check("--regions", RegionId, region)
    templates = [name for name in names if PLACE in name]
    if templates and not regions:
        raise ValueError(f"TABLE: {templates[0]!r} is refused: give --regions all, or regions' ids, to fill in {PLACE}")
    if regions and not templates:
        raise ValueError(f"--regions: no TABLE has {PLACE} to fill in: give one that has, such as 'MarketData-{PLACE}'")
    region_ids = list_regions([int(region) for region in given] or None)
    filled = [[name.replace(PLACE, str(region_id)) for region_id in region_ids] for name in names]
    return list(dict.fromkeys(chain.from_iterable(filled)))


def check(what: str, kind: Any, value: str) -> None:  # noqa: ANN401 (an annotated type)
    """Raise unless a value is what a flow's parameter may be.

    Raises:
        ValueError: it is not; with what is allowed.
    """
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{what}: {error.errors()[0]['msg']}") from None


def create_tables(names: Sequence[str]) -> int:
    """Create tables side by side, say what became of each, and return the exit code.

    Raises:
        BotoCoreError: boto3 finds no region, or no such profile.
    """
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, max_pool_connections=CONCURRENCY)
    client = boto3.client("dynamodb", config=config)
    deadline = time.monotonic() + PATIENCE_SECONDS
    states: Counter[str] = Counter()
    reasons: set[str] = set()
    threads = ThreadPoolExecutor(CONCURRENCY)
    try:
        for future in as_completed([threads.submit(attempt, client, name, deadline) for name in names]):
            outcome = future.result()
            states[outcome.state] += 1
            reason = str(outcome).replace(outcome.name, "")
            if outcome.state != "failed" or reason not in reasons:  # 113 tables may fail for one reason
                print(outcome, file=sys.stderr if outcome.state == "failed" else sys.stdout, flush=True)
            reasons.add(reason)
    finally:
        threads.shutdown(cancel_futures=True)
        client.close()
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    print(f"{len(names)} asked for in {client.meta.region_name}: {counts}")  # noqa: T201 (a command's answer)
    return 1 if states["failed"] or states["unfit"] else 0


def attempt(client: "DynamoDBClient", name: str, deadline: float) -> Outcome:
    """Create a table, and return what became of it; an error becomes a sentence."""
    try:
        return create_table(client, name, deadline)
    except (BotoCoreError, ClientError, TableError) as error:
        return Outcome(name, "failed", (f"{error}{advise(error)}",))


def create_table(client: "DynamoDBClient", name: str, deadline: float) -> Outcome:
    """Create a table unless it is there, wait until it can be used, and switch on what it lacks.

    Raises:
        ClientError: DynamoDB refused.
        TableError: it could not be used in time, or not at all.
    """
    is_new = False
    while (table := find_table(client, name, deadline)) is None or table["TableStatus"] != "ACTIVE":
        status = table["TableStatus"] if table else "missing"
        if status not in {"missing", "CREATING", "UPDATING", "DELETING"} or time.monotonic() > deadline:
            raise TableError(f"its status is {status}, expected ACTIVE: see what the AWS console says, then run again")
        if table is None and not is_new:
            is_new = begin_table(client, name, deadline)
        time.sleep(POLL_SECONDS)
    if keys := describe_unfit_keys(table):
        return Outcome(name, "unfit", (f"its keys are {keys}, expected pk (S) alone: give another name",))
    notes = [switch(client, name, deadline) for switch in (protect, expire)]
    return Outcome(name, "created" if is_new else "there already", tuple(filter(None, notes)))


def find_table(client: "DynamoDBClient", name: str, deadline: float) -> "TableDescriptionTypeDef | None":
    """Return the description of a table, None if there is none."""
    try:
        table: TableDescriptionTypeDef = call(deadline, client.describe_table, TableName=name)["Table"]
    except client.exceptions.ResourceNotFoundException:
        return None
    return table


def begin_table(client: "DynamoDBClient", name: str, deadline: float) -> bool:
    """Ask for a table; return whether it is this call that makes it, and not somebody else's."""
    try:
        call(
            deadline,
            client.create_table,
            PASSING_CODES - {"ResourceInUseException"},
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    except client.exceptions.ResourceInUseException:
        return False
    return True


def describe_unfit_keys(table: "TableDescriptionTypeDef") -> str:
    """Return a table's keys if they are others than the partition key pk (S), nothing if they are that."""
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
    keys = " and ".join(f"{key['AttributeName']} ({types[key['AttributeName']]})" for key in table["KeySchema"])
    return "" if keys == "pk (S)" else keys


def protect(client: "DynamoDBClient", name: str, deadline: float) -> str:
    """Make a table restorable to any second of its last 35 days; return what was done, nothing if it was so."""
    try:
        backups = call(deadline, client.describe_continuous_backups, TableName=name)["ContinuousBackupsDescription"]
        if backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED":
            return ""
        wanted = {"PointInTimeRecoveryEnabled": True}
        call(deadline, client.update_continuous_backups, TableName=name, PointInTimeRecoverySpecification=wanted)
    except ClientError as error:
        if error.response["Error"]["Code"] != "UnknownOperationException":
            raise
        return "this store knows no point-in-time recovery"  # such as DynamoDB Local
    return "point-in-time recovery switched on"


def expire(client: "DynamoDBClient", name: str, deadline: float) -> str:
    """Have DynamoDB remove items by their attribute `expires_at`; return what was done, nothing if it was so."""
    described = call(deadline, client.describe_time_to_live, TableName=name)["TimeToLiveDescription"]
    if described["TimeToLiveStatus"] != "DISABLED":
        return ""
    wanted = {"AttributeName": "expires_at", "Enabled": True}
    call(deadline, client.update_time_to_live, TableName=name, TimeToLiveSpecification=wanted)
    return "time to live switched on"


def call(
    deadline: float,
    operation: Callable[..., Any],
    passing: set[str] = PASSING_CODES,
    **arguments: Any,  # noqa: ANN401 (an operation's own shape)
) -> Any:  # noqa: ANN401 (as above)
    """Call DynamoDB, and again after growing, jittered waits while it says that it cannot just now.

    Raises:
        ClientError: DynamoDB refused, or still could not at the deadline.
    """
    for attempts in count(1):
        try:
            return operation(**arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] not in passing or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0, min(MAX_WAIT_SECONDS, 0.2 * 2 ** min(attempts, 8))))  # noqa: S311 (spreads calls)
    raise AssertionError


def advise(error: Exception) -> str:
    """Return what to do about an error, as the end of its sentence; nothing if nothing is known."""
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    if code == "AccessDeniedException":
        return "; deployments/aws/iam-policy-create-tables.json has what this needs: is the table among its resources?"
    if code == "LimitExceededException":
        return "; the account may have reached its number of tables, 2,500 a region unless AWS has raised it"
    return ""


if __name__ == "__main__":
    sys.exit(main())
