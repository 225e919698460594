"""The baseline: the plain script that a good engineer would write for the same table, without retries or checks."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import msgspec
import numpy as np
import pandas as pd
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HEADERS = {"X-Compatibility-Date": "2026-08-18", "Accept-Encoding": "gzip"}
STORE_CONCURRENCY = 8

Batch = list[dict[str, Any]]


class Order(msgspec.Struct, gc=False):
    """The fields of an order that the table needs."""

    type_id: int
    price: float
    volume_remain: int
    is_buy_order: bool


decoder = msgspec.json.Decoder(list[Order])


def run(region_ids: list[int], table_name: str, fetch_concurrency: int) -> None:
    """Fill each region's table with its cheapest sell orders, one region at a time, writing every record."""
    asyncio.run(fill(region_ids, table_name, fetch_concurrency))


async def fill(region_ids: list[int], table_name: str, fetch_concurrency: int) -> None:
    """Fill the tables with one HTTP client and one DynamoDB client."""
    client = boto3.client("dynamodb", config=Config(max_pool_connections=STORE_CONCURRENCY, parameter_validation=False))
    limits = httpx.Limits(max_connections=fetch_concurrency, max_keepalive_connections=fetch_concurrency)
    async with httpx.AsyncClient(base_url=os.environ["ESI_URL"], headers=HEADERS, limits=limits, timeout=30) as http:
        for region_id in region_ids:
            batches = make_batches(await fetch_region(http, region_id, fetch_concurrency))
            store(client, batches, table_name.format(region_id=region_id))


async def fetch_region(http: httpx.AsyncClient, region_id: int, fetch_concurrency: int) -> list[pd.DataFrame]:
    """Return the sell orders, one frame per page."""
    path = f"/markets/{region_id}/orders"
    semaphore = asyncio.Semaphore(fetch_concurrency)

    async def fetch(page: int) -> pd.DataFrame:
        async with semaphore:
            response = await http.get(path, params={"order_type": "all", "page": page})
            return decode(response.raise_for_status().content)

    head = await http.head(path, params={"order_type": "all"})
    return await asyncio.gather(*map(fetch, range(1, int(head.headers["X-Pages"]) + 1)))


def decode(body: bytes) -> pd.DataFrame:
    """Return a page's sell orders."""
    orders = [order for order in decoder.decode(body) if not order.is_buy_order]
    return pd.DataFrame(
        {
            "type_id": np.array([order.type_id for order in orders], "int32"),
            "price": np.array([order.price for order in orders], "float64"),
            "volume": np.array([order.volume_remain for order in orders], "int64"),
        }
    )


def make_batches(pages: list[pd.DataFrame]) -> list[Batch]:
    """Return all records as put requests, in batches of 25."""
    orders = pd.concat(pages, ignore_index=True)
    records = orders.groupby("type_id").agg(price=("price", "min"), volume=("volume", "sum"))
    requests: Batch = [
        {"PutRequest": {"Item": {"pk": {"S": str(t)}, "price": {"N": str(price)}, "volume": {"N": str(volume)}}}}
        for t, price, volume in zip(records.index, records.price.tolist(), records.volume.tolist(), strict=True)
    ]
    return split(requests)


def split(requests: Batch) -> list[Batch]:
    """Return requests in batches of 25, as many as DynamoDB accepts."""
    return [requests[start : start + 25] for start in range(0, len(requests), 25)]


def store(client: "DynamoDBClient", batches: list[Any], table_name: str) -> None:
    """Write batches from 8 threads, asking for the consumed capacity as the flows do."""

    def write(batch: Any) -> None:  # noqa: ANN401 (boto3's own)
        client.batch_write_item(RequestItems={table_name: batch}, ReturnConsumedCapacity="TOTAL")

    with ThreadPoolExecutor(STORE_CONCURRENCY) as threads:
        list(threads.map(write, batches))
