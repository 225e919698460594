"""The CloudFormation template, deployed to a local stand-in for AWS, and compared with what runs do."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from deployments.local.environment import CHECKOUT, base_environment, store_environment
from deployments.local.processes import free_port
from deployments.local.servers import STORE_COMMAND, Servers
from tasks.table.client import Table
from tasks.table.create import create
from tasks.table.requests import Keys
from tests.support.commands import Commands
from tests.support.deployment_files import IMAGE_TAG, RESOURCES, TEMPLATE, TEMPLATE_FILE, find_secrets
from tests.support.servers import wait_for

POLICY = json.loads(Path(CHECKOUT, "deployments/aws/iam-policy.json").read_text())
GIVEN = {
    "Image": f"123456789012.dkr.ecr.us-east-1.amazonaws.com/market-data:{IMAGE_TAG}",
    "PrefectApiUrl": "https://api.prefect.cloud/api/accounts/a/workspaces/w",
    "PrefectApiKeySecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:prefect-a1b2c3",
    "EsiUserAgent": "somebody@example.com",
    "VpcId": "vpc-1",
    "SubnetIds": "subnet-1",
}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a stand-in for AWS that has all services of the template."""
    home = tmp_path_factory.mktemp("aws")
    servers, port = Servers(home, base_environment(os.environ) | {"TMPDIR": str(home)}), free_port()
    services = {"SERVICES": "cloudformation,dynamodb,iam,ecs,logs,cloudwatch,ec2,sts"}
    url = f"http://127.0.0.1:{port}"
    servers.start("aws", STORE_COMMAND, store_environment(port, home) | services, url=f"{url}/_ministack/health")
    servers.wait_until_up()
    yield url
    servers.stop()


def test_template_deploys(account: str) -> None:
    """CloudFormation creates everything except the service: the stand-in passes its number parameter as text."""
    wanted = TEMPLATE | {
        "Resources": {name: each for name, each in RESOURCES.items() if name != "Service"},
        "Outputs": {name: each for name, each in TEMPLATE["Outputs"].items() if name != "Service"},
    }
    cloudformation = boto3.client("cloudformation", endpoint_url=account)
    cloudformation.create_stack(
        StackName="market-data",
        TemplateBody=json.dumps(wanted),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in GIVEN.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    states: list[str] = []

    def is_settled() -> bool:
        (stack,) = cloudformation.describe_stacks(StackName="market-data")["Stacks"]
        states.append(stack["StackStatus"])
        return "PROGRESS" not in states[-1]

    wait_for(is_settled, "the stack")
    events = cloudformation.describe_stack_events(StackName="market-data")["StackEvents"]
    assert states[-1] == "CREATE_COMPLETE", [each.get("ResourceStatusReason") for each in events]
    dynamodb = boto3.client("dynamodb", endpoint_url=account)
    for name, keys in (("MarketData", Keys()), ("MarketHubs", Keys(60003760)), ("PlayerCount", Keys())):
        table = dynamodb.describe_table(TableName=name)["Table"]
        assert table["KeySchema"] == keys.definition["KeySchema"]
        assert table["AttributeDefinitions"] == keys.definition["AttributeDefinitions"]
    iam = boto3.client("iam", endpoint_url=account)
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    (role,) = [role for role in roles if "KeepMarketData" in iam.list_role_policies(RoleName=role)["PolicyNames"]]
    policy: Any = iam.get_role_policy(RoleName=role, PolicyName="KeepMarketData")["PolicyDocument"]
    assert policy["Statement"][0]["Resource"][0] == "arn:aws:dynamodb:us-east-1:000000000000:table/MarketData"
    for client in (cloudformation, dynamodb, iam):
        client.close()


@pytest.mark.parametrize("name", ["MarketTable", "HubsTable", "PlayerCountTable"])
def test_tables_are_safe(name: str) -> None:
    """Tables are on demand, can be restored to any second, outlive the stack, and expire items by `expires_at`."""
    table = RESOURCES[name]
    assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
    assert table["Properties"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["Properties"]["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def test_task_role_has_the_policy() -> None:
    """The task role allows exactly the actions of iam-policy.json, on the same tables."""
    (policy,) = RESOURCES["TaskRole"]["Properties"]["Policies"]
    (granted, key), (wanted, wanted_key) = policy["PolicyDocument"]["Statement"], POLICY["Statement"]
    assert granted["Action"] == wanted["Action"]
    assert key["Action"] == wanted_key["Action"]
    assert key["Resource"]["Fn::Sub"].endswith(":kms:${AWS::Region}:${AWS::AccountId}:key/*")
    assert list(key["Condition"]["StringLike"]) == ["kms:ViaService"]
    tables = {resource["Fn::Sub"].rsplit("/", 1)[1] for resource in granted["Resource"]}
    assert tables == {resource.rsplit("/", 1)[1] for resource in wanted["Resource"]}
    assert all("${AWS::AccountId}:table/" in resource["Fn::Sub"] for resource in granted["Resource"])


def test_execution_role_can_only_start_a_task() -> None:
    """The execution role may pull the image, write the log and read one secret; only the token is for `*`."""
    (policy,) = RESOURCES["ExecutionRole"]["Properties"]["Policies"]
    everywhere = [each["Action"] for each in policy["PolicyDocument"]["Statement"] if each["Resource"] == "*"]
    actions = [each["Action"] for each in policy["PolicyDocument"]["Statement"]]
    assert everywhere == ["ecr:GetAuthorizationToken"]
    assert "*" not in json.dumps(actions)
    assert "ManagedPolicyArns" not in json.dumps(TEMPLATE)


def test_workers_accept_no_connections() -> None:
    """The security group has no ingress, and the health check stays within the container."""
    assert RESOURCES["SecurityGroup"]["Properties"]["SecurityGroupIngress"] == []
    (container,) = RESOURCES["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    assert "PortMappings" not in container
    assert {"Name": "PREFECT_WORKER_WEBSERVER_HOST", "Value": "127.0.0.1"} in container["Environment"]


def test_no_secret_is_in_the_template() -> None:
    """The API key is a reference to a secret; no parameter or default has a key."""
    assert not find_secrets(TEMPLATE)
    (container,) = RESOURCES["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    assert container["Secrets"] == [{"Name": "PREFECT_API_KEY", "ValueFrom": {"Ref": "PrefectApiKeySecretArn"}}]
    assert not re.search(r"AKIA|pnu_|BEGIN .*KEY", TEMPLATE_FILE.read_text())
    assert find_secrets({"Environment": [{"Name": "PREFECT_API_KEY", "Value": "pnu_1"}]})


def test_stale_data_raise_an_alarm_after_15_minutes() -> None:
    """Three periods of five minutes without a completed run raise the alarm, and so do missing data."""
    alarm = RESOURCES["Stale"]["Properties"]
    assert alarm["Period"] * alarm["EvaluationPeriods"] == 900
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanThreshold", 1)
    assert alarm["TreatMissingData"] == "breaching"
    for name in ("CompletedRuns", "NotModifiedRuns"):
        (metric,) = RESOURCES[name]["Properties"]["MetricTransformations"]
        assert (metric["MetricNamespace"], metric["MetricName"]) == (alarm["Namespace"], alarm["MetricName"])


@pytest.mark.usefixtures("api", "served", "store_url")
def test_log_has_the_lines_that_the_alarm_counts(commands: Commands, table_name: str) -> None:
    """A run that stores, one that is not modified, and a universe run each log one line that their filter matches."""
    with Table(table_name, 1) as table:
        create(table)
    one = ["--region-id", "10000003", "--table-name", table_name]
    for name in ("CompletedRuns", "NotModifiedRuns"):
        terms = re.findall(r'"([^"]+)"', RESOURCES[name]["Properties"]["FilterPattern"])
        done = commands.run("flows.market_data", *one, PREFECT_LOGGING_LEVEL="INFO")
        assert done.returncode == 0
        lines = (done.stdout + done.stderr).splitlines()
        assert len(terms) == 3
        assert len([line for line in lines if all(term in line for term in terms)]) == 1, lines
        assert any("Task run" in line and "Finished in state" in line for line in lines)
    many = ["--table-name", f"{table_name}-{{region_id}}", "--region-ids", "10000003", "10000006"]
    done = commands.run("flows.universe", *many, PREFECT_LOGGING_LEVEL="INFO")
    assert done.returncode == 0
    terms = re.findall(r'"([^"]+)"', RESOURCES["CompletedRuns"]["Properties"]["FilterPattern"])
    lines = (done.stdout + done.stderr).splitlines()
    assert len([line for line in lines if all(term in line for term in terms)]) == 1, lines
