"""The idiomatic way with Prefect: a mapped task run for each page, and one for each batch of 25 records."""

import os
from typing import TYPE_CHECKING, Any, cast

import boto3
import httpx
import pandas as pd
from prefect import flow, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from benchmarks.plain import HEADERS, decode, make_batches

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def run(region_ids: list[int], table_name: str, fetch_concurrency: int) -> None:
    """Fill a region's table with its cheapest sell orders: all records, every time."""
    runner = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner[Any](max_workers=fetch_concurrency))
    one_task_a_page.with_options(task_runner=runner)(region_ids[0], table_name.format(region_id=region_ids[0]))


aggregate = task(name="aggregate", cache_policy=NO_CACHE)(make_batches)


@flow(name="one-task-a-page")
def one_task_a_page(region_id: int, table_name: str) -> None:
    """Fetch, aggregate and store."""
    dynamodb = boto3.client("dynamodb")
    with httpx.Client(base_url=os.environ["ESI_URL"], headers=HEADERS, timeout=30) as http:
        pages = get_page_count(http, region_id)
        orders = fetch_page.map(unmapped(http), unmapped(region_id), range(1, pages + 1)).result()
    store_batch.map(aggregate(orders), unmapped(table_name), unmapped(dynamodb)).result()


@task(retries=3, retry_delay_seconds=1, cache_policy=NO_CACHE)
def get_page_count(http: httpx.Client, region_id: int) -> int:
    """Ask how many pages there are."""
    return int(http.head(f"/markets/{region_id}/orders", params={"order_type": "all"}).headers["X-Pages"])


@task(retries=3, retry_delay_seconds=1, cache_policy=NO_CACHE)
def fetch_page(http: httpx.Client, region_id: int, page: int) -> pd.DataFrame:
    """Download one page."""
    answer = http.get(f"/markets/{region_id}/orders", params={"order_type": "all", "page": page})
    return decode(answer.raise_for_status().content)


@task(retries=3, retry_delay_seconds=1, cache_policy=NO_CACHE)
def store_batch(batch: Any, table_name: str, dynamodb: "DynamoDBClient") -> None:  # noqa: ANN401 (requests of boto3)
    """Write one batch."""
    dynamodb.batch_write_item(RequestItems={table_name: batch})
