"""A market that misbehaves, kept by declaration."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mypy_boto3_dynamodb import DynamoDBClient

from tasks.table.requests import Item
from tasks.table.snapshot import SourceSnapshot
from tests.support.chaos import declared
from tests.support.chaos.market import SmallMarket
from tests.support.faults.market import serve_faulty
from tests.support.faults.plan import Fault, Plan
from tests.support.faults.world import World


class DeclaredWorld(World):
    """A world whose market is at one address all the time, and kept by the flow `paged-api`."""

    def __init__(self, market: SmallMarket, table_name: str, dynamodb: DynamoDBClient, url: str, plan: Plan) -> None:
        super().__init__(market, table_name, dynamodb)
        self.url = url
        self._plan = plan

    @classmethod
    @contextmanager
    def open(cls, market: SmallMarket, table_name: str, dynamodb: DynamoDBClient) -> Iterator["DeclaredWorld"]:
        """Serve the market until the block ends."""
        plan = Plan([])
        with serve_faulty(market, plan) as url:
            yield cls(market, table_name, dynamodb, url, plan)

    @contextmanager
    def _serve(self, faults: Sequence[Fault]) -> Iterator[str]:
        self._plan.start(faults)
        yield self.url

    def _keep(self, **parameters: Any) -> Any:
        return declared.keep(self.url, self.table_name, **parameters)

    def _describe(self, index: int, records: int) -> Item:
        return declared.describe(self.url, index, "complete", "min", records, "")

    def read_snapshot(self) -> SourceSnapshot:
        """Return `#snapshot`."""
        return SourceSnapshot.from_item(self.items()["#snapshot"])
