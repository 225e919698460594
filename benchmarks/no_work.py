"""The floor for market_data: the task runs of a first fill of The Forge, all empty, and the imports that it defers."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tasks.build_iterator import CHUNKS
from tasks.imports import load
from tasks.store_records import PARTS

DEFERRED = ("tasks.orders.columns", "tasks.orders.aggregation")  # with numpy and pandas


def run(_region_ids: list[int], _table_name: str, _fetch_concurrency: int) -> None:
    """Run the flow."""
    no_work()


@flow(name="no-work")
def no_work() -> None:
    """Run the states in order."""
    for module in DEFERRED:
        load(module)
    for task_runs in (1, 1, CHUNKS, 1, 1, PARTS, 1):
        nothing.map(range(task_runs)).result()


@task(cache_policy=NO_CACHE, persist_result=False)
def nothing(_number: int) -> None:
    """Do nothing."""
