"""The deployments of prefect.yaml, run by Prefect's command and a worker, as users run them."""

import json
import os
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from deployments.local.environment import CHECKOUT, POOL
from deployments.local.processes import Child, stop_all
from deployments.local.servers import worker_command
from flows.paged_api import paged_api
from tasks.esi.shared_limit import LIMIT
from tests.support.api import Api
from tests.support.apis import API_CASES, find_declarations, find_key_code, serve_apis
from tests.support.commands import Commands
from tests.support.esi import REFRESH_TOKEN, TOKEN_ROUTE, EsiMarket
from tests.support.pages import find_commands
from tests.support.runs import ask
from tests.support.servers import PrefectServer, finish_reports, wait_for
from tests.support.tables import records, scan
from tests.support.truth import truth
from tests.support.worlds import VENAL, Clock, serve

SMALL, STRUCTURE = 10000003, 1_000_000_000_002
NAMES = ["all", "shard", "tranquility", "structure", "region"]

pytestmark = [pytest.mark.outage, pytest.mark.usefixtures("store_url")]


@pytest.fixture(scope="module")
def market() -> EsiMarket:
    """Return the market that all runs of the worker see."""
    return EsiMarket(clock=Clock(time.time() // 300 * 300 + 60))


@pytest.fixture(scope="module")
def worker(
    own_server: PrefectServer, commands: Commands, market: EsiMarket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Child]:
    """Yield a worker for the deployments."""
    own_server.api.create_pool(POOL)
    names = [argument for name in NAMES for argument in ("--name", name)]
    commands.run("prefect.__main__", "--no-prompt", "deploy", *names, **own_server.settings).check_returncode()
    with serve(market) as url:
        environ = os.environ | own_server.settings | {"ESI_URL": url, "ESI_SSO_URL": url + TOKEN_ROUTE}
        child = Child("worker", worker_command(), environ, tmp_path_factory.mktemp("worker") / "worker.log")
        wait_for(lambda: own_server.api.has_worker(POOL), "the worker")
        yield child
        stop_all([child])


class User:
    """Somebody who types Prefect's commands."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def deploy(self, *arguments: str) -> None:
        """Deploy from prefect.yaml."""
        self._commands.run("prefect.__main__", "--no-prompt", "deploy", *arguments).check_returncode()

    def run(self, deployment: str, **parameters: object) -> str:
        """Run a deployment until it has completed; return the run's id."""
        given = [word for name, value in parameters.items() for word in ("--param", f"{name}={json.dumps(value)}")]
        done = self._commands.run("prefect.__main__", "deployment", "run", deployment, *given, "--watch")
        assert done.returncode == 0, done.stdout + done.stderr
        return str(re.findall(r"UUID: ([0-9a-f-]{36})", done.stdout)[0])


@pytest.fixture
def user(own_api: Api, worker: Child, commands: Commands) -> User:
    """Return a user of the server and its worker."""
    assert own_api.is_up()
    assert worker.poll() is None
    return User(commands)


def test_worker_runs_each_deployment(
    own_api: Api, user: User, market: EsiMarket, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """Regions run in shards, and one fails without the others; a structure and the player count are stored."""
    template = f"{table_name}-{{region_id}}"
    run_id = user.run("universe/all", region_ids=[SMALL, VENAL, 19999999], table_name=template, shards=2)
    for region_id in (SMALL, VENAL):
        items = scan(dynamodb, template.replace("{region_id}", str(region_id)))
        assert records(items) == truth(market, region_id)
    assert re.search(r"3 regions in \d+ s: 2 stored, 1 failed;", own_api.read_state(run_id).message or "")
    found = own_api.find_deployment("universe/shard")
    runs = ask(own_api, "/flow_runs/filter", {"deployments": {"id": {"any_": [found.id]}}})
    assert sorted(run["state_name"] for run in runs) == [
        "Completed",
        "Failed",
    ]  # the region that fails is alone in its shard
    assert {limit["name"] for limit in ask(own_api, "/v2/concurrency_limits/filter", {})} >= {LIMIT}

    user.run("player-count/tranquility", table_name=f"{table_name}-players")
    (pk,) = scan(dynamodb, f"{table_name}-players")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", pk)

    credentials = {"client_id": "app", "refresh_token": REFRESH_TOKEN}
    with temporary_settings({PREFECT_API_URL: own_api.url}):
        Secret(value=credentials).save("eve-sso", overwrite=True)  # type: ignore[arg-type]
    user.run("structure-market/structure", structure_id=STRUCTURE, table_name=f"{table_name}-s")
    assert records(scan(dynamodb, f"{table_name}-s")) == truth(market, STRUCTURE)


def run_here(own_api: Api, deployment: str, **parameters: object) -> str:
    """Run a deployment of a declared API in this process, as its parameters are on the server; return the run's id."""
    found = own_api.find_deployment(deployment)
    wanted = {"parameters": parameters, "state": {"type": "PENDING"}}  # the worker takes what is scheduled
    flow_run = FlowRun.model_validate(ask(own_api, f"/deployments/{found.id}/create_flow_run", wanted))
    with temporary_settings({PREFECT_API_URL: own_api.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        run_flow(paged_api, flow_run=flow_run)
        finish_reports()
    return str(flow_run.id)


def test_declarations_are_deployed_and_run(
    own_api: Api, user: User, dynamodb: DynamoDBClient, table_name: str, tmp_path: Path
) -> None:
    """The declarations of the docs page, deployed from prefect.yaml, fill their tables: one by the page's command."""
    with temporary_settings({PREFECT_API_URL: own_api.url}):
        exec(find_key_code(), {})
    endpoints = {name: make() for name, (make, _make_truth) in API_CASES.items()}
    commands = find_commands("docs/another-endpoint.md")
    with serve_apis(*endpoints.values()) as url:
        file = tmp_path / "prefect.yaml"
        file.write_text("".join([Path(CHECKOUT, "prefect.yaml").read_text(), *find_declarations(url)]))
        user.deploy("--prefect-file", str(file), *(word for name in endpoints for word in ("--name", name)))
        assert {"prefect deploy --name contracts", "prefect deployment run paged-api/contracts --watch"} <= {*commands}
        for name, endpoint in endpoints.items():
            run_one = user.run if name == "contracts" else partial(run_here, own_api)
            run_id = run_one(f"paged-api/{name}", table_name=f"{table_name}-{name}")
            items = scan(dynamodb, f"{table_name}-{name}")
            assert items.pop("#snapshot")["state"] == {"S": "complete"}
            assert items == API_CASES[name][1](endpoint.items)
            assert f"has 127.0.0.1:{url.rpartition(':')[2]}{endpoint.path}" in (
                own_api.read_state(run_id).message or ""
            )


FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


def test_manual_runs_do_not_cancel_each_other(
    own_api: Api,
    user: User,
    market: EsiMarket,
    dynamodb: DynamoDBClient,
    table_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs of one deployment all complete: side by side for different regions, one after another for one table.

    Deploying removes a limit of one run that an earlier version set.
    """
    found = own_api.find_deployment("market-data/region")
    limit = {"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "CANCEL_NEW"}}
    httpx.patch(f"{own_api.url}/deployments/{found.id}", json=limit, trust_env=False).raise_for_status()
    user.deploy("--name", "region")
    monkeypatch.setattr(market, "latency_seconds", 1.0)
    template = f"{table_name}-{{region_id}}"
    given = [{"region_id": region_id, "table_name": template} for region_id in (VENAL, SMALL, VENAL)]
    create = f"/deployments/{found.id}/create_flow_run"
    runs = [ask(own_api, create, {"parameters": parameters})["id"] for parameters in given]
    wait_for(lambda: all(own_api.read_state(run_id).type in FINAL for run_id in runs), "the runs' ends")
    assert [own_api.read_state(run_id).type for run_id in runs] == ["COMPLETED"] * 3
    for region_id in (SMALL, VENAL):
        items = scan(dynamodb, template.replace("{region_id}", str(region_id)))
        assert records(items) == truth(market, region_id)
