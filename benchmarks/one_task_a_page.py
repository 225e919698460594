"""The idiomatic Prefect flow: one mapped task run per page, and one per batch of 25 records."""

import os
from typing import Any

import boto3
import httpx
import pandas as pd
from prefect import flow, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from benchmarks.plain import HEADERS, decode, make_batches


def run(region_ids: list[int], table_name: str, fetch_concurrency: int) -> None:
    """Fill a region's table with its cheapest sell orders, writing every record."""
    runner: Any = ThreadPoolTaskRunner(max_workers=fetch_concurrency)
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
    """Return the number of pages."""
    return int(http.head(f"/markets/{region_id}/orders", params={"order_type": "all"}).headers["X-Pages"])


@task(retries=3, retry_delay_seconds=1, cache_policy=NO_CACHE)
def fetch_page(http: httpx.Client, region_id: int, page: int) -> pd.DataFrame:
    """Download a page and return its sell orders."""
    response = http.get(f"/markets/{region_id}/orders", params={"order_type": "all", "page": page})
    return decode(response.raise_for_status().content)


@task(retries=3, retry_delay_seconds=1, cache_policy=NO_CACHE)
def store_batch(batch: Any, table_name: str, dynamodb: Any) -> None:  # noqa: ANN401 (boto3's)
    """Write a batch."""
    dynamodb.batch_write_item(RequestItems={table_name: batch})
