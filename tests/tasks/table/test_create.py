"""Creating a table."""

from mypy_boto3_dynamodb import DynamoDBClient

from tasks.table.client import Table
from tasks.table.create import create, create_command


def test_table_is_created_once(table: Table, dynamodb: DynamoDBClient) -> None:
    """A table is created with on-demand billing and the key `pk`; creating it again does no harm."""
    create(table)
    described = dynamodb.describe_table(TableName=table.name)["Table"]
    assert described["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table.read_snapshot() is None


def test_create_command_makes_the_same(table: Table) -> None:
    """The AWS CLI command has the endpoint, the region, the table's name and its key."""
    command = create_command(table)
    assert command.startswith("aws dynamodb create-table --endpoint-url http://127.0.0.1:")
    assert f" --region us-east-1 --table-name {table.name} " in command
    assert "AttributeName=pk,KeyType=HASH --billing-mode PAY_PER_REQUEST" in command
