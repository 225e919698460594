"""A market and a store that misbehave, and a table between them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from typing import Any

from mypy_boto3_dynamodb import DynamoDBClient

from flows.market_data import Summary, market_data
from tasks.esi.pause import find_pause
from tasks.table.client import Table
from tasks.table.create import create
from tasks.table.requests import Item
from tasks.table.snapshot import TableSnapshot
from tests.support.chaos.market import REGION, SmallMarket
from tests.support.chaos.play import describe, environment
from tests.support.faults.market import serve_faulty
from tests.support.faults.plan import Fault, Plan
from tests.support.faults.store import serve_faulty_store
from tests.support.tables import scan
from tests.support.worlds import Clock


class World:
    """A market and a store that misbehave by plan, and a table between them."""

    def __init__(self, market: SmallMarket, table_name: str, dynamodb: DynamoDBClient) -> None:
        self.market = market
        self.table_name = table_name
        self._dynamodb = dynamodb

    def run(self, *faults: Fault, store: tuple[Fault, ...] = (), **parameters: Any) -> Summary:
        """Run the flow once, with faults."""
        (summary,) = self.run_at_once(1, *faults, store=store, **parameters)
        return summary

    def run_at_once(
        self, number: int, *faults: Fault, store: tuple[Fault, ...] = (), **parameters: Any
    ) -> list[Summary]:
        """Run the flow so many times at the same time, with faults."""
        self.market.reset_counts()
        direct = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
        with (
            self._serve(faults) as market_url,
            serve_faulty_store(direct, Plan(list(store))) as store_url,
            environment(ESI_URL=market_url, AWS_ENDPOINT_URL_DYNAMODB=store_url),
        ):
            try:
                with ThreadPoolExecutor(number) as pool:
                    run = partial(self._keep, **parameters)
                    runs = [pool.submit(copy_context().run, run) for _ in range(number)]
                    return [future.result() for future in runs]
            finally:
                find_pause.cache_clear()  # as if the time were over

    def _serve(self, faults: Sequence[Fault]) -> AbstractContextManager[str]:
        return serve_faulty(self.market, Plan(list(faults)))

    def _keep(self, **parameters: Any) -> Any:
        return market_data(REGION, self.table_name, **parameters)

    def _describe(self, index: int, records: int) -> Item:
        return describe(index, "complete", ("sell", "min", "compact"), records, "")

    def fill(self) -> None:
        """Put the present snapshot into the table, as a run of before has left it."""
        with Table(self.table_name, 1) as table:
            create(table)
        items = self.market.truth(self.market.index, "sell", "min", "compact")
        for item in [*items.values(), self._describe(self.market.index, len(items))]:
            self.put(item)

    def move_on(self) -> None:
        """Let the next snapshot come."""
        assert isinstance(self.market.clock, Clock)
        self.market.clock.now += self.market.every

    def items(self) -> dict[str, dict[str, Any]]:
        """Return all of the table."""
        return scan(self._dynamodb, self.table_name)

    def put(self, item: dict[str, Any]) -> None:
        """Put an item into the table, as somebody else does."""
        self._dynamodb.put_item(TableName=self.table_name, Item=item)

    def read_snapshot(self) -> Any:
        """Return `#snapshot`."""
        return TableSnapshot.from_item(self.items()["#snapshot"])

    def is_exact(self) -> bool:
        """Return whether the table is the present snapshot, and say so."""
        truth = self.market.truth(self.market.index, "sell", "min", "compact")
        return (
            self.read_snapshot().state == "complete"
            and {pk: r for pk, r in self.items().items() if pk.isdigit()} == truth
        )
