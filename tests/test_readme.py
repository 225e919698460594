"""Every command of the README and of the pages works as it stands there."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.environment import CHECKOUT, prefect_environment
from deployments.local.market.market import Market, make_incursions
from tasks.table.client import Table
from tasks.table.create import create_command
from tests.support.api import Api
from tests.support.commands import Commands
from tests.support.pages import PAGES, find_blocks, find_commands, run, run_module
from tests.support.tables import scan

# What runs the commands of the pages, by how these begin.
RUN_BY = {
    "make (run|table)": "tests/deployments/test_make_run.py",
    "make (up|status)": "tests/deployments/test_make_up.py",
    "make report": "tests/deployments/test_report.py",
    "make lint test outages": ".ci/run",
    "make chaos": "tests/support/chaos/test_chaos.py",
    "make bench": "tests/benchmarks/test_bench.py",
    "make scale": "tests/benchmarks/test_scale.py",
    "make (lock|audit)|git diff": "Makefile",  # these need a package index, so that only a person runs them
    "python -m flows.(universe|.* --markets)|aws dynamodb (get-item|query)": "tests/test_markets_page.py",
    "python -m flows.(?!universe|.* --markets)|aws dynamodb create|aws iam": "tests/test_readme.py",
    "python -m deployments.tables (?!.*--(key|markets))": "tests/test_readme.py",
    "python -m deployments.tables .*--(key|markets)": "tests/test_markets_page.py",
    "export PREFECT_SERVER_(?!EVENTS|SERVICES_DB_VACUUM_BATCH_SIZE)": "tests/deployments/test_schedule.py",
    "export PREFECT_SERVER_(EVENTS|SERVICES_DB_VACUUM_BATCH_SIZE)": "tests/test_readme.py",
    "source|prefect (server|config|worker)": "tests/deployments/test_schedule.py",
    "export PREFECT_API_URL|prefect (deploy|deployment|work-pool|gcl)": "tests/deployments/test_schedule.py",
    "prefect flow-run (ls|inspect|logs)": "tests/deployments/test_schedule.py",
    "prefect flow-run retry": "tests/deployments/test_outage.py",
    "python -m deployments.automations": "tests/deployments/test_automations.py",
    "export (OTEL|PREFECT_LOGGING)": "tests/tasks/reporting/test_telemetry.py",
    "docker|aws (?!dynamodb|iam)|kubectl|helm|ssh|prefect cloud": "tests/deployments/test_machines.py",
    "cd|mkdir|openssl|cp|chmod|echo": "tests/deployments/test_machines.py",
}
COMMANDS = find_commands("README.md")


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_run_by_something(page: str) -> None:
    """A page has only commands that something runs, in blocks that a shell can parse."""
    for command in find_commands(page):
        runners = [
            runner for begin, runner in RUN_BY.items() if re.match(rf"(\w+=(\"[^\"]*\"|\S+) )*({begin})", command)
        ]
        assert len(runners) == 1, command
        assert Path(CHECKOUT, runners[0]).exists(), runners[0]
    subprocess.run(["bash", "-n"], input="".join(find_blocks(page, "sh")), text=True, check=True)


def test_make_targets_are_there() -> None:
    """Each make target that a page names is one of `make help`'s."""
    named = {
        target for page in PAGES.values() for target in re.findall(r"(?:`|= ?|^)make ([a-z]+)", page, re.MULTILINE)
    }
    listed = set(re.findall(r"^  make (\w+)", run("make help"), re.MULTILINE))
    assert named <= listed
    assert set(re.findall(r"\bmake ([a-z]+)", PAGES["README.md"])) <= listed
    assert {"run", "up", "table", "setup", "test", "lint", "help"} <= listed


def test_server_settings_are_those_of_the_stack() -> None:
    """What pages set for one's own Prefect server is what the embedded stack sets for its own."""
    exports, more = (read_exports(page) for page in ("README.md", "docs/operating.md"))
    own = prefect_environment("http://127.0.0.1:4200/api")
    assert more
    assert more.items() <= exports.items()
    database = "PREFECT_SERVER_DATABASE_CONNECTION_URL"  # in a folder of its own
    assert exports.pop(database).split("?")[1] == own[database].split("?")[1]
    assert exports
    assert exports.items() <= own.items()


def test_server_settings_are_prefects(commands: Commands) -> None:
    """What a page sets for a larger Prefect server are settings of Prefect's, with values that it takes."""
    exports = read_exports("docs/scale.md")
    assert len(exports) == 4
    shown = run_module(commands, "prefect config view", **exports)
    assert all(f"{name}=" in shown for name in exports)


def read_exports(page: str) -> dict[str, str]:
    """Return what a page's commands set for a Prefect server."""
    commands = [command for command in find_commands(page) if command.startswith("export PREFECT_SERVER_")]
    return dict(shlex.split(command)[1].split("=", 1) for command in commands)


def test_pages_say_how_to_start_a_run() -> None:
    """Each page on what a deployment does has the command that runs it."""
    started = [
        page for page in PAGES for command in find_commands(page) if command.startswith("prefect deployment run")
    ]
    assert set(started) == {"README.md", "docs/another-endpoint.md", "docs/markets.md", "docs/operating.md"}


@pytest.mark.usefixtures("served", "store_url", "api")
def test_python_examples_run(market: Market, dynamodb: DynamoDBClient, table_name: str) -> None:
    """The pages' Python fills a table, here of a smaller region, and reads it, with no more than an import."""
    (read,), (fill,) = find_blocks("README.md", "python"), find_blocks("docs/operating.md", "python")
    fill = fill.replace("10000002", "10000003").replace("MarketData-{region_id}", table_name)
    assert float(run(f"python - <<'PY'\n{fill}\nPY").split()[0]) == len(scan(dynamodb, table_name)) - 1
    assert market.requests["GET 200"] == 1
    records = scan(dynamodb, table_name)
    type_id = min(records.keys() - {"#snapshot"})
    read = read.replace("[34]", f"[{type_id}]").replace("MarketData", table_name)
    assert run(f"python - <<'PY'\n{read}\nPY").split()[0] == records[type_id]["price"]["N"]


@pytest.mark.usefixtures("served", "store_url", "api")
def test_shell_examples_run(commands: Commands, dynamodb: DynamoDBClient, table_name: str) -> None:
    """The README's command line fills a table, here of a smaller region, and explains itself."""
    fill, explain = [command for command in COMMANDS if command.startswith("python -m flows.market_data")]
    printed = run_module(commands, fill.replace("10000002", "10000003").replace("MarketData-{region_id}", table_name))
    assert f"{table_name} has region 10000003 of " in printed
    assert scan(dynamodb, table_name)["#snapshot"]["state"] == {"S": "complete"}
    assert "--fetch-concurrency" in run_module(commands, explain)


@pytest.mark.usefixtures("store_url", "served")
def test_another_endpoint_works_as_described(
    api: Api, market: Market, dynamodb: DynamoDBClient, tmp_path: Path
) -> None:
    """Whoever follows the page word by word, in a checkout of their own, has a flow that stores an item."""
    kinds = [find_blocks("docs/another-endpoint.md", kind) for kind in ("python", "yaml", "sh")]
    code, entry, shell = (next(block for block in kind if "incursions" in block) for kind in kinds)
    create = kinds[2][-1]
    checkout = tmp_path / "checkout"
    for folder in ("flows", "tasks", "deployments"):
        shutil.copytree(CHECKOUT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "flows" / "incursions.py").write_text(code)
    (checkout / "prefect.yaml").write_text(Path(CHECKOUT, "prefect.yaml").read_text() + entry)
    api.create_pool("market-data")
    for command in shell.splitlines():
        run(command.replace("prefect deploy ", "prefect --no-prompt deploy "), checkout)
    assert "Incursions: " in run(create, checkout)
    (item,) = scan(dynamodb, "Incursions").values()
    assert item["incursions"] == {"N": str(len(make_incursions(market.clock())))}
    assert api.find_deployment("incursions/hourly").parameters == {"table_name": "Incursions"}


def test_aws_command_is_the_one_that_a_failed_run_names(store_url: str) -> None:
    """The README creates the same table as the message of a run that found none."""
    assert store_url
    (command,) = [line for line in COMMANDS if "create-table" in line]
    with Table("MarketData", 1) as table:
        named = re.sub(r"--(region|endpoint-url) \S+ ", "", create_command(table))
    assert command.split() == named.split()


def test_tables_are_created_as_described(
    store_url: str, commands: Commands, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """The README's commands create one table, and those of regions, here of two."""
    assert store_url
    one, many = [command for command in COMMANDS if command.startswith("python -m deployments.tables")]
    assert f"{table_name}: created" in run_module(commands, one.replace("MarketData", table_name))
    printed = run_module(commands, many.replace("MarketData", table_name).replace("all", "10000002 10000043"))
    assert printed.count(": created") == 2
    names = dynamodb.get_paginator("list_tables").paginate().search("TableNames[]")
    assert {table_name, f"{table_name}-10000002", f"{table_name}-10000043"} <= set(names)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """What a page links to or names is there: files, headings, and what a command is given."""
    for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", PAGES[page]):
        target = Path(CHECKOUT, page).parent / path if path else Path(CHECKOUT, page)
        assert target.exists(), path
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
        assert heading in {"", *(re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings)}, heading
    for name in re.findall(r"file://(deployments/\S+)", PAGES[page]):
        assert Path(CHECKOUT, name).exists(), name
