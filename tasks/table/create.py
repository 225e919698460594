"""Creates a missing table, on this machine only; elsewhere says how."""

from botocore.exceptions import BotoCoreError, ClientError

from tasks.table.client import Table
from tasks.table.errors import NO_KEY, KeySchemaError, MissingTableError, TableError, TransientTableError, name_cause
from tasks.table.requests import Item

CLOSED = {"INACCESSIBLE_ENCRYPTION_CREDENTIALS", "ARCHIVING", "ARCHIVED"}  # statuses of a table without its KMS key


def create_missing(table: Table, error: MissingTableError) -> None:
    """Create a missing table, if the store is on this machine.

    Raises:
        MissingTableError: the store is elsewhere; the message has the command that creates the table.
        TransientTableError: the table is being created or changed.
        TableError: DynamoDB refused.
    """
    status = describe(table).get("TableStatus")
    if status in CLOSED:
        raise NO_KEY.explain(f"table {table.name} is {status}") from error
    if status:
        raise TransientTableError(f"table {table.name} is not ready: it is {status}") from error
    if not table.connection.is_local:
        raise MissingTableError(f"{error}; otherwise create it with `{create_command(table)}`") from error
    create(table)


def create(table: Table) -> None:
    """Create a table with on-demand billing and wait until it is ready; only wait if it exists."""
    wanted: Item = {"TableName": table.name, "BillingMode": "PAY_PER_REQUEST", **table.keys.definition}
    try:
        table.connection.call(table.name, "create_table", **wanted)
    except TransientTableError as error:
        if name_cause(error) != "ResourceInUseException":  # another run came first
            raise
    try:
        waiter = table.connection.open().client.get_waiter("table_exists")
        waiter.wait(TableName=table.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    except (ClientError, BotoCoreError) as error:
        raise TransientTableError(f"table {table.name} is not ready: {error}") from error


def describe(table: Table) -> Item:
    """Return DynamoDB's description of a table, empty if it does not exist or may not be described."""
    try:
        description: Item = table.connection.call(table.name, "describe_table", TableName=table.name)["Table"]
    except TransientTableError:
        raise
    except TableError:
        return {}
    return description


def name_keys(table: Table, error: KeySchemaError) -> KeySchemaError:
    """Return an error that names the table's keys, if it may be described, and those it should have."""
    try:
        described = describe(table)
    except TransientTableError:
        return error
    if not described:
        return error
    types = {each["AttributeName"]: each["AttributeType"] for each in described["AttributeDefinitions"]}
    has = " and ".join(f"{part['AttributeName']} ({types[part['AttributeName']]})" for part in described["KeySchema"])
    return KeySchemaError(
        f"table {table.name} has the key {has}, {table.keys.parameter} needs {table.keys}: give the other key, or "
        "another table_name"
    )


def join(parts: list[Item]) -> str:
    """Return key attributes for the AWS CLI: `AttributeName=pk,KeyType=HASH …`."""
    return " ".join(",".join(f"{name}={value}" for name, value in part.items()) for part in parts)


def create_command(table: Table) -> str:
    """Return the shell command that creates the table."""
    meta = table.connection.open().client.meta
    is_aws = meta.endpoint_url.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    endpoint = "" if is_aws else f"--endpoint-url {meta.endpoint_url} "
    attributes, schema = map(join, table.keys.definition.values())
    return (
        f"aws dynamodb create-table {endpoint}--region {meta.region_name} --table-name {table.name} "
        f"--attribute-definitions {attributes} --key-schema {schema} --billing-mode PAY_PER_REQUEST"
    )
