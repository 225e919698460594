"""Runs and deployments of a Prefect server, made and read as its clients do."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.schemas.objects import FlowRun

from tests.support.api import Api
from tests.support.commands import Commands
from tests.support.servers import finish_reports, wait_for

ANCHOR = "2026-01-01T00:00:00+00:00"
DAY_SECONDS = 86_400


def ask(api: Api, path: str, body: dict[str, Any]) -> Any:
    """Ask Prefect's server."""
    return api.send("POST", path, body).json()


def schedule(*, active: bool = True, slug: str | None = None, **parameters: Any) -> dict[str, Any]:
    """Return a schedule, as Prefect's API takes it."""
    slugged = {"slug": slug} if slug else {}
    return {
        "schedule": {"interval": DAY_SECONDS, "anchor_date": ANCHOR},
        "active": active,
        "parameters": parameters,
        **slugged,
    }


def deploy(
    api: Api, parameters: dict[str, Any], *schedules: dict[str, Any], name: str = "", flow: str = "market-data"
) -> str:
    """Make a deployment, or deploy it again as `prefect deploy` does, and return its id."""
    flow_id = ask(api, "/flows/", {"name": flow})["id"]
    body = {"name": name or str(uuid.uuid4()), "flow_id": flow_id, "parameters": parameters, "schedules": schedules}
    return str(ask(api, "/deployments/", body)["id"])


def make_run(api: Api, deployment_id: str, tags: list[str], **parameters: Any) -> FlowRun:
    """Make a run of a deployment."""
    path = f"/deployments/{deployment_id}/create_flow_run"
    return FlowRun.model_validate(ask(api, path, {"parameters": parameters, "tags": tags}))


def read_run(api: Api, run: FlowRun) -> FlowRun:
    """Return a run as the server has it now."""
    return FlowRun.model_validate(api.send("GET", f"/flow_runs/{run.id}").json())


def find_runs(api: Api, deployment_id: str, **which: Any) -> list[FlowRun]:
    """Return the runs of a deployment that are as wanted, the first due first."""
    wanted = {"deployments": {"id": {"any_": [deployment_id]}}, "flow_runs": which, "sort": "EXPECTED_START_TIME_ASC"}
    return [FlowRun.model_validate(run) for run in ask(api, "/flow_runs/filter", wanted)]


def scheduled_runs(api: Api, deployment_id: str) -> list[FlowRun]:
    """Have each schedule of a deployment make a run that is due, and return them."""
    now = datetime.now(UTC)
    bounds = {"start_time": str(now - timedelta(days=1)), "end_time": str(now), "min_runs": 1, "max_runs": 1}
    api.send("POST", f"/deployments/{deployment_id}/schedule", bounds)
    due = find_runs(
        api, deployment_id, expected_start_time={"before_": str(now)}, state={"type": {"any_": ["SCHEDULED"]}}
    )
    return [run for run in due if run.auto_scheduled]


def read_task_runs(api: Api, flow_run_id: str, last: str = "Store Records: complete") -> list[str]:
    """Return the names of a flow run's task runs, once the server has all of its events, that of `last` too."""
    wanted = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "limit": 200}
    found: list[str] = []

    def is_settled() -> bool:
        runs = ask(api, "/task_runs/filter", wanted)
        found[:] = [run["name"] for run in runs if run["state_name"] == "Completed"]
        return last in found and len(found) == len(runs)

    wait_for(is_settled, "the last task run's event")
    return found


def read_artifacts(api: Api, run_id: str) -> list[dict[str, Any]]:
    """Return a run's artifacts, the oldest first."""
    finish_reports()
    found: list[dict[str, Any]] = ask(api, "/artifacts/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    return sorted(found, key=lambda artifact: str(artifact["created"]))


def read_events(own_api: Api, prefix: str, since: datetime) -> list[dict[str, Any]]:
    """Return the events from a time on whose names begin so, the oldest first."""
    wanted = {"filter": {"event": {"prefix": [prefix]}, "occurred": {"since": since.isoformat()}}, "limit": 50}
    found: list[dict[str, Any]] = ask(own_api, "/events/filter", wanted)["events"]
    return sorted(found, key=lambda event: str(event["occurred"]))


def run_command(commands: Commands, table_name: str, region_id: int = 10000005) -> int:
    """Run the flow of a region, of one page by default, in a process of its own; return its exit code."""
    options = ["--region-id", str(region_id), "--table-name", table_name]
    return commands.run("flows.market_data", *options).returncode
