"""Every command of the README works as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import uuid
from pathlib import Path

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.automations import read_automations
from deployments.local.environment import CHECKOUT, VENV, prefect_environment
from deployments.local.market.market import Market, make_incursions
from tasks.esi.credentials import load_credentials
from tasks.table.client import Table
from tests.conftest import scan
from tests.support.api import Api, Deployment
from tests.support.servers import wait_for

README = Path(CHECKOUT, "README.md").read_text()
SHELL = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
]
COMMANDS = [re.sub(r"\s+#.*", "", line) for line in SHELL]


def run(command: str, checkout: Path = CHECKOUT, **environ: str) -> str:
    """Run a command of the README in a shell of a checkout, and return its output."""
    done = subprocess.run(
        ["bash", "-c", f"source {VENV}/bin/activate; {command}"],
        cwd=checkout,
        env=os.environ | {"VIRTUAL_ENV_DISABLE_PROMPT": "1", "PATH": f"{VENV}/bin:{os.environ['PATH']}"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_make_targets_are_there() -> None:
    """Each make target that the README names is one of `make help`'s."""
    named = set(re.findall(r"\bmake ([a-z]+)", README)) - {"are"}
    listed = set(re.findall(r"^  make (\w+)", run("make help"), re.MULTILINE))
    assert named <= listed
    assert {"run", "up", "table", "setup", "test", "lint", "help"} <= listed


def test_server_settings_are_those_of_the_stack() -> None:
    """What the README sets for one's own Prefect server is what the embedded stack sets for its own."""
    exports = [shlex.split(command)[1] for command in COMMANDS if command.startswith("export PREFECT_SERVER_")]
    told = dict(export.split("=", 1) for export in exports)
    own = prefect_environment("http://127.0.0.1:4200/api")
    database = "PREFECT_SERVER_DATABASE_CONNECTION_URL"  # in a folder of its own
    assert told.pop(database).split("?")[1] == own[database].split("?")[1]
    assert told
    assert told.items() <= own.items()


def test_prefect_commands_deploy_and_schedule(api: Api) -> None:
    """The README's way to a Prefect server: pool, deploy, schedule on; the server then schedules runs by itself."""
    assert "prefect work-pool create market-data --type process" in COMMANDS
    run("prefect work-pool create market-data --type process")
    run("prefect --no-prompt deploy --all")
    assert "python -m deployments.automations" in COMMANDS
    assert run("python -m deployments.automations").count(": created, ") == len(read_automations())
    assert "interval: 0:05:00" in run("prefect deployment schedule ls market-data/venal")
    found = api.find_deployment("market-data/venal")
    run(f"prefect deployment schedule resume market-data/venal {found.schedules[0].id}")
    wait_for(lambda: bool(scheduled_runs(api, found)), "a scheduled run")
    run("prefect deployment run market-data/region --param region_id=10000043")


def scheduled_runs(api: Api, deployment: Deployment) -> list[object]:
    """Return the runs that the server has scheduled."""
    wanted = {
        "deployments": {"id": {"any_": [deployment.id]}},
        "flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}},
    }
    runs: list[object] = httpx.post(f"{api.url}/flow_runs/filter", json=wanted, trust_env=False).json()
    return runs


@pytest.mark.usefixtures("served", "store_url", "api")
def test_python_examples_run(market: Market, dynamodb: DynamoDBClient, table_name: str) -> None:
    """The README's Python fills a table, here of a smaller region, and reads it, with no more than an import."""
    read, fill = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[:2]
    fill = fill.replace("10000002", "10000003").replace("MarketData-{region_id}", table_name)
    assert float(run(f"python - <<'PY'\n{fill}\nPY").split()[0]) == len(scan(dynamodb, table_name)) - 1
    assert market.requests["GET 200"] == 1
    records = scan(dynamodb, table_name)
    type_id = min(records.keys() - {"#snapshot"})
    read = read.replace("MarketData", table_name).replace('"34"', repr(type_id))
    assert run(f"python - <<'PY'\n{read}\nPY").split()[0] == records[type_id]["price"]["N"]


@pytest.mark.usefixtures("served", "store_url", "api")
def test_shell_examples_run(dynamodb: DynamoDBClient, table_name: str) -> None:
    """The README's command line fills a table, here of a smaller region, and explains itself."""
    fill, explain = [command for command in COMMANDS if command.startswith("python -m flows.market_data")]
    told = run(fill.replace("10000002", "10000003").replace("MarketData-{region_id}", table_name))
    assert f"{table_name} has region 10000003 of " in told
    assert scan(dynamodb, table_name)["#snapshot"]["state"] == {"S": "complete"}
    assert "--fetch-concurrency" in run(explain)


@pytest.mark.usefixtures("served", "store_url", "api")
def test_many_regions_example_runs(dynamodb: DynamoDBClient) -> None:
    """The README's command for several regions fills their tables, here of smaller ones."""
    (command,) = [command for command in COMMANDS if command.startswith("python -m flows.universe")]
    assert "2 regions in " in run(command.replace("10000002 10000043", "10000003 10000006"))
    assert scan(dynamodb, "MarketData-10000003")["#snapshot"]["state"] == {"S": "complete"}


@pytest.mark.usefixtures("served", "store_url", "api")
def test_secret_example_stores_credentials() -> None:
    """The README's block is one that the flow for structures understands."""
    example = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "Secret" in code)
    name = f"eve-sso-{uuid.uuid4()}"
    run(f"python - <<'PY'\n{example.replace('eve-sso', name)}\nPY")
    assert load_credentials(name).client_id == "…"


@pytest.mark.usefixtures("store_url", "api")
def test_another_endpoint_is_written_as_told(
    market: Market, served: str, dynamodb: DynamoDBClient, tmp_path: Path
) -> None:
    """Who follows the README's ten minutes word by word, in a checkout of their own, has a flow that stores an item."""
    told = README.split("### Another endpoint, in ten minutes")[1].split("\n## ")[0]
    (code,), (entry,), (shell,) = (
        re.findall(rf"```{kind}\n(.*?)```", told, re.DOTALL) for kind in ("python", "yaml", "sh")
    )
    checkout = tmp_path / "checkout"
    for folder in ("flows", "tasks", "deployments"):
        shutil.copytree(CHECKOUT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "flows" / "incursions.py").write_text(code)
    (checkout / "prefect.yaml").write_text(Path(CHECKOUT, "prefect.yaml").read_text() + entry)
    assert served
    for command in shell.splitlines():
        run(command.replace("prefect deploy ", "prefect --no-prompt deploy "), checkout)
    (item,) = scan(dynamodb, "Incursions").values()
    assert item["incursions"] == {"N": str(len(make_incursions(market.clock())))}
    with Api(os.environ["PREFECT_API_URL"]) as api:
        assert api.find_deployment("incursions/hourly").parameters == {"table_name": "Incursions"}


def test_aws_command_is_the_one_that_a_failed_run_names(store_url: str) -> None:
    """The README creates the same table as the message of a run that found none."""
    assert store_url
    (command,) = [line for line in COMMANDS if "create-table" in line]
    with Table("MarketData", 1) as table:
        named = re.sub(r"--(region|endpoint-url) \S+ ", "", table.create_command())
    assert command.split() == named.split()


def test_tables_are_created_as_told(store_url: str, dynamodb: DynamoDBClient, table_name: str) -> None:
    """The README's commands create one table, and those of regions, here of two."""
    assert store_url
    one, many = [command for command in COMMANDS if command.startswith("python -m deployments.tables")]
    assert f"{table_name}: created" in run(one.replace("MarketData", table_name))
    told = run(many.replace("MarketData", table_name).replace("all", "10000002 10000043"))
    assert told.count(": created") == 2
    names = dynamodb.get_paginator("list_tables").paginate().search("TableNames[]")
    assert {table_name, f"{table_name}-10000002", f"{table_name}-10000043"} <= set(names)


def test_files_are_there() -> None:
    """What the README links to or names is there."""
    for name in re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"file://(\S+)", README):
        assert Path(CHECKOUT, name).exists(), name
