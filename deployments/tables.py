"""Create DynamoDB tables with the settings that deployments/aws/market-data.yaml gives its own.

Existing tables keep their records; settings that they lack are switched on.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import OperationModel
from pydantic import TypeAdapter, ValidationError

from deployments.local.progress import fail
from flows.parameters import MarketId, RegionId, TableTemplate
from tasks.allowed import allow
from tasks.catalogue.names import list_regions
from tasks.orders.choices import Key
from tasks.table.errors import TableError
from tasks.table.requests import Keys

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CONCURRENCY = 50  # tables at once: DynamoDB lets an account create, change and delete 500 at a time
PATIENCE_SECONDS = 900.0  # until a table is active
MOST_RETRIES = 180  # of a call, in about as long
POLL_SECONDS = 1.0
MAX_WAIT_SECONDS = 10.0
IN_USE = "ResourceInUseException"  # the table is being changed, or exists
TRANSIENT = {
    "ContinuousBackupsUnavailableException",  # the table is still new
    "InternalServerError",
    "LimitExceededException",  # 500 tables are being created, changed or deleted
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
}
ADVICE = {
    "AccessDeniedException": "; deployments/aws/iam-policy-create-tables.json has what this needs: is the table among "
    "its resources?",
    "LimitExceededException": "; the account may have reached its limit of tables, 2,500 a region unless AWS has "
    "raised it",
}
KEYS: dict[Key, Keys] = {"type": Keys(), "market_type": Keys(1)}  # of whichever market
MARKET = Annotated[MarketId, allow("ids of markets: regions, systems, stations such as 60003760, structures")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if a table is missing or unfit, 2 if a name is invalid."""
    parser = argparse.ArgumentParser("python -m deployments.tables", description=__doc__)
    parser.add_argument(
        "names", nargs="+", metavar="TABLE", help="name of a table; may contain {region_id} and {market_id}"
    )
    parser.add_argument(
        "--regions", nargs="+", default=[], metavar="REGION", help="region ids to replace {region_id}, or all"
    )
    parser.add_argument("--markets", nargs="+", default=[], metavar="MARKET", help="market ids to replace {market_id}")
    parser.add_argument(
        "--key", choices=KEYS, default="type", help="type: pk, for one market; market_type: pk and sk, for many markets"
    )
    given = parser.parse_args(arguments)
    try:
        return create_tables(fill_in_places(given.names, given.regions, given.markets), KEYS[given.key])
    except ValueError as error:
        fail(f"{parser.prog}: {error}")
        return 2
    except BotoCoreError as error:
        return fail(f"no tables: {error} (boto3 reads AWS_PROFILE, AWS_DEFAULT_REGION …)")


def fill_in_places(names: Sequence[str], regions: Sequence[str], markets: Sequence[str]) -> list[str]:
    """Return the tables' names, each once; raise ValueError if one, a region or a market is invalid or missing."""
    given = [] if regions == ["all"] else regions
    kinds: dict[str, tuple[Any, Sequence[str]]] = {
        "TABLE": (list[TableTemplate], names),
        "--regions": (list[RegionId], given),
        "--markets": (list[MARKET], markets),
    }
    for option, (kind, values) in kinds.items():
        try:
            TypeAdapter(kind).validate_python(values)
        except ValidationError as error:
            raise ValueError(f"{option}: {error.errors()[0]['msg']}") from None
    for place, option, ids, advice in (
        ("{region_id}", "--regions", regions, "--regions all, or regions' ids"),
        ("{market_id}", "--markets", markets, "--markets and their ids"),
    ):
        template = next((name for name in names if place in name), None)
        if template and not ids:
            raise ValueError(f"TABLE: {template!r} is refused: give {advice}, to fill in {place}")
        if ids and not template:
            raise ValueError(
                f"{option}: no TABLE has {place} to fill in: give one that has, such as 'MarketData-{place}'"
            )
    region_ids = list_regions([int(region) for region in given] or None)
    filled = [name.replace("{region_id}", str(region_id)) for name in names for region_id in region_ids]
    return list(dict.fromkeys(name.replace("{market_id}", market) for name in filled for market in markets or [""]))


def create_tables(names: Sequence[str], keys: Keys) -> int:
    """Create tables concurrently, print what became of each, and return the exit code."""
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, max_pool_connections=CONCURRENCY)
    client = boto3.client("dynamodb", config=config)
    client.meta.events.register("needs-retry.dynamodb", find_wait)  # type: ignore[arg-type]  # it may return
    states: Counter[str] = Counter()
    errors: set[str] = set()
    with closing(client), ThreadPoolExecutor(CONCURRENCY) as threads:
        results = threads.map(partial(try_to_create, client, keys), names)
        for name, (state, *notes) in zip(names, results, strict=True):
            states[state] += 1
            line = "; ".join([f"{name}: {state}", *notes])
            if state != "failed":
                print(line, flush=True)  # noqa: T201 (a command's answer)
            elif notes[0] not in errors:  # 113 tables may fail for one reason
                fail(line)
                errors.add(notes[0])
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    print(f"{len(names)} asked for in {client.meta.region_name}: {counts}")  # noqa: T201 (a command's answer)
    return 1 if states["failed"] or states["unfit"] else 0


def find_wait(response: tuple[Any, Any] | None, operation: OperationModel, attempts: int, **_: object) -> float | None:
    """Return the seconds after which botocore retries a call, growing and jittered; None if it does not."""
    code = response[1].get("Error", {}).get("Code") if response else None
    is_transient = code in TRANSIENT or (code == IN_USE and operation.name != "CreateTable")
    if not is_transient or attempts > MOST_RETRIES:
        return None
    return random.uniform(0, min(MAX_WAIT_SECONDS, 0.2 * 2 ** min(attempts, 8)))  # noqa: S311 (spreads calls)


def try_to_create(client: "DynamoDBClient", keys: Keys, name: str) -> list[str]:
    """Do as `create_table`, but return `failed` and the reason in place of an error."""
    try:
        return create_table(client, keys, name)
    except (BotoCoreError, ClientError, TableError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        return ["failed", f"{error}{ADVICE.get(code, '')}"]


def create_table(client: "DynamoDBClient", keys: Keys, name: str) -> list[str]:
    """Create a table unless it exists, wait until it is active, and switch on the settings that it lacks.

    Return `created`, `there already` or `unfit`, then notes.
    """
    state, deadline = "there already", time.monotonic() + PATIENCE_SECONDS
    while (table := describe(client, name))["TableStatus"] != "ACTIVE":
        status = table["TableStatus"]
        if status not in {"missing", "CREATING", "UPDATING", "DELETING"} or time.monotonic() > deadline:
            raise TableError(f"its status is {status}, expected ACTIVE: see what the AWS console says, then run again")
        if status == "missing" and state != "created":
            with suppress(client.exceptions.ResourceInUseException):  # another process has just created it
                client.create_table(
                    TableName=name,
                    BillingMode="PAY_PER_REQUEST",
                    **keys.definition,  # type: ignore[arg-type]  # as DynamoDB's API has them
                )
                state = "created"
        time.sleep(POLL_SECONDS)
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
    has = " and ".join(f"{key['AttributeName']} ({types[key['AttributeName']]})" for key in table["KeySchema"])
    if has != str(keys):
        return ["unfit", f"its keys are {has}, expected {'' if keys.market_id else 'only '}{keys}: give another name"]
    return [state, *protect(client, name), *expire(client, name)]


def describe(client: "DynamoDBClient", name: str) -> dict[str, Any]:
    """Return DynamoDB's description of a table; its `TableStatus` is `missing` if there is no table."""
    try:
        return dict(client.describe_table(TableName=name)["Table"])
    except client.exceptions.ResourceNotFoundException:
        return {"TableStatus": "missing"}


def protect(client: "DynamoDBClient", name: str) -> list[str]:
    """Make a table restorable to any second of its last 35 days; return what was done, if anything."""
    try:
        backups = client.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        if backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED":
            return []
        client.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "UnknownOperationException":
            raise
        return ["this store has no point-in-time recovery"]  # such as DynamoDB Local
    return ["point-in-time recovery switched on"]


def expire(client: "DynamoDBClient", name: str) -> list[str]:
    """Have DynamoDB remove items by their attribute `expires_at`; return what was done, if anything."""
    if client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]["TimeToLiveStatus"] != "DISABLED":
        return []
    client.update_time_to_live(TableName=name, TimeToLiveSpecification={"AttributeName": "expires_at", "Enabled": True})
    return ["time to live switched on"]


if __name__ == "__main__":
    sys.exit(main())
