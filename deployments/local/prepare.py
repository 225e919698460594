"""Prepare the stack's Prefect server. Imports Prefect, which takes two seconds: import this while the server starts."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import actions, filters, objects, schedules
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Crashed

from deployments.local.environment import POOL

UNFINISHED = {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]}}}


def open_client(api_url: str) -> SyncPrefectClient:
    """Return a client of the stack's server."""
    return SyncPrefectClient(api_url, httpx_settings={"trust_env": False})


def prepare_server(client: SyncPrefectClient) -> None:
    """Create the work pool, and clean up after a stack that was killed: active schedules, unfinished runs, workers."""
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(actions.WorkPoolCreate(name=POOL, type="process"))
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            if schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=False)
    for run in client.read_flow_runs(flow_run_filter=filters.FlowRunFilter.model_validate(UNFINISHED)):
        client.set_flow_run_state(run.id, Crashed(message="The stack was stopped while it ran."))
    for worker in client.read_workers_for_work_pool(POOL):
        names = {"work_pool_name": POOL, "name": worker.name}
        client.request("DELETE", "/work_pools/{work_pool_name}/workers/{name}", path_params=names)


def has_worker(client: SyncPrefectClient) -> bool:
    """Return whether a worker polls the pool."""
    return any(worker.status == objects.WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(POOL))


def start_schedule(client: SyncPrefectClient, name: str, parameters: dict[str, Any]) -> None:
    """Activate the schedules of a deployment that have these parameters, or create one that runs every 300 s."""
    deployment = client.read_deployment_by_name(name)
    own = deployment.parameters
    found = [each for each in deployment.schedules if parameters.items() <= (own | each.parameters).items()]
    for schedule in found:
        client.update_deployment_schedule(deployment.id, schedule.id, active=True)
    if not found:
        every = schedules.IntervalSchedule(interval=timedelta(seconds=300))
        new = actions.DeploymentScheduleCreate(schedule=every, active=True, parameters=parameters)
        client.create_deployment_schedules(deployment.id, [new])
