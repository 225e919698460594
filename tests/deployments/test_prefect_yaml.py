"""The deployments in prefect.yaml."""

from typing import Any

import pytest

from deployments.automations import read_automations
from deployments.local.environment import CHECKOUT, DEPLOYMENTS
from flows.next_run import AT_EXPIRES
from flows.paged_api import paged_api
from flows.parameters import fill_in
from tasks.catalogue.names import HUBS
from tests.support.deployed import DEPLOYED, FLOWS, PREFECT_YAML

REGIONS = [deployment for deployment in DEPLOYED if "region_id" in deployment["parameters"]]


@pytest.mark.parametrize("deployment", DEPLOYED, ids=lambda deployment: deployment["name"])
def test_deployment_is_complete(deployment: dict[str, Any]) -> None:
    """Each deployment has a pool, a description, tags, and parameters that its flow accepts."""
    assert deployment["work_pool"]["name"] == "market-data"
    assert deployment["description"]
    assert deployment["tags"]
    assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert "heartbeat-30" in deployment["tags"]
    needed = {"structure_id": 1_000_000_000_001} if deployment["name"] == "structure" else {}
    FLOWS[deployment["entrypoint"]].validate_parameters(deployment["parameters"] | needed)


@pytest.mark.parametrize("deployment", DEPLOYED, ids=lambda deployment: deployment["name"])
def test_only_scheduled_deployments_have_a_limit(deployment: dict[str, Any]) -> None:
    """A scheduled run is cancelled if the previous one is active; manual runs, for any table, are not limited."""
    if deployment.get("schedules"):
        assert deployment["concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"
    else:
        assert "concurrency_limit" not in deployment


@pytest.mark.parametrize("deployment", DEPLOYED, ids=lambda deployment: deployment["name"])
def test_schedules_are_inactive_and_staggered(deployment: dict[str, Any]) -> None:
    """Schedules are inactive, run every 300 s, for all regions every 900 s, and not on the full minute."""
    for schedule in deployment.get("schedules", []):
        assert (schedule["interval"], schedule["active"]) == (900 if deployment["name"] == "all" else 300, False)
        assert not schedule["anchor_date"].endswith(":00+00:00")


def test_deployments_have_their_own_tables() -> None:
    """No two deployments write the same table, and `make` finds them by region."""
    tables = {
        d["name"]: fill_in(d["parameters"]["table_name"], region_id=d["parameters"]["region_id"]) for d in REGIONS
    }
    assert len(set(tables.values())) == len(tables)
    assert tables["venal"] == "MarketData"
    assert tables["the-forge"] == "MarketData-10000002"
    assert {d["parameters"]["region_id"]: d["name"] for d in REGIONS if d["name"] != "region"} == DEPLOYMENTS


def test_all_named_hubs_are_kept() -> None:
    """The deployment `hubs` keeps each named hub of each region in one table, and follows ESI's `Expires`."""
    (hubs,) = [deployment for deployment in DEPLOYED if deployment["name"] == "hubs"]
    kept = {(hub, int(region_id)) for region_id, ids in hubs["parameters"]["markets"].items() for hub in ids}
    assert kept == {(hub_id, hub.region_id) for hub_id, hub in HUBS.items()}
    assert (hubs["parameters"]["table_name"], hubs["parameters"]["key"]) == ("MarketHubs", "market_type")
    assert AT_EXPIRES in hubs["tags"]


def test_file_has_no_absolute_path() -> None:
    """The file has no absolute path, so that any checkout can deploy it."""
    assert str(CHECKOUT) not in PREFECT_YAML.read_text()
    assert "set_working_directory" not in PREFECT_YAML.read_text()


@pytest.mark.parametrize("automation", read_automations(), ids=lambda automation: automation["name"])
def test_automations_watch_all_flows(automation: dict[str, Any]) -> None:
    """Automations that watch runs watch those of all deployed flows and of declared APIs, and of no other project."""
    if related := automation["trigger"].get("match_related"):
        watched = related[0] if isinstance(related, list) else related
        assert set(watched["prefect.resource.name"]) == {
            paged_api.name,
            *(FLOWS[each["entrypoint"]].name for each in DEPLOYED),
        }
