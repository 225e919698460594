"""What `prefect deploy --all` deploys."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployments.local.environment import CHECKOUT, DEPLOYMENTS
from flows.market_data import market_data
from tasks.parameters import fill_in

FILE = Path(CHECKOUT, "prefect.yaml")
DEPLOYED: list[dict[str, Any]] = msgspec.yaml.decode(FILE.read_bytes())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYED, ids=lambda deployment: deployment["name"])
def test_deployment_is_whole(deployment: dict[str, Any]) -> None:
    """Each deployment has a pool, a description, tags, a limit of one run, and parameters that the flow takes."""
    assert deployment["entrypoint"] == "flows/market_data.py:market_data"
    assert deployment["work_pool"]["name"] == "market-data"
    assert deployment["description"]
    assert deployment["tags"]
    assert deployment["concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"
    market_data.validate_parameters(deployment["parameters"])


@pytest.mark.parametrize("deployment", DEPLOYED, ids=lambda deployment: deployment["name"])
def test_schedules_are_off_and_out_of_step(deployment: dict[str, Any]) -> None:
    """A schedule is every 300 s, off until it is switched on, and not at minute 0, 5, 10, when everybody asks."""
    for schedule in deployment.get("schedules", []):
        assert (schedule["interval"], schedule["active"]) == (300, False)
        assert not schedule["anchor_date"].endswith(":00+00:00")


def test_deployments_write_tables_of_their_own() -> None:
    """No two deployments write one table, and the commands know them by region."""
    tables = {d["name"]: fill_in(d["parameters"]["table_name"], d["parameters"]["region_id"]) for d in DEPLOYED}
    assert len(set(tables.values())) == len(tables)
    assert tables["venal"] == "MarketData"
    assert tables["the-forge"] == "MarketData-10000002"
    assert {d["parameters"]["region_id"]: d["name"] for d in DEPLOYED if d["name"] != "region"} == DEPLOYMENTS


def test_no_path_of_a_machine() -> None:
    """The file names no absolute path, so that it deploys from any checkout."""
    assert str(CHECKOUT) not in FILE.read_text()
    assert "set_working_directory" not in FILE.read_text()
