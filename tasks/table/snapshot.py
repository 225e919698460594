"""The item `#snapshot`, which tells readers and runs where a table stands."""

from datetime import UTC, datetime
from typing import Literal, Self

import msgspec

from tasks.table.client import SNAPSHOT_KEY, Item, TableError

UNKNOWN = datetime.fromtimestamp(0, UTC)
FORMAT_VERSION = 1  # of the items; a table of another version is compared and rewritten, never taken as up to date

OrderType = Literal["sell", "buy", "all"]
Price = Literal["min", "max", "mean", "weighted_mean", "median", "percentile_5"]
Detail = Literal["compact", "full", "fuzzwork"]
Key = Literal["type", "region_type"]


class Parameters(msgspec.Struct, frozen=True):
    """What the records depend on: two runs with the same parameters and snapshot make the same table."""

    region_id: int
    order_type: OrderType
    price: Price
    detail: Detail


class TableSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The item `#snapshot`: where the table stands."""

    state: Literal["writing", "complete"]  # writing: some records may be of the snapshot before
    region_id: int
    order_type: OrderType
    price: Price
    detail: Detail
    last_modified: datetime  # names the snapshot, UTC
    expires: datetime = UNKNOWN  # until then ESI has no newer one, UTC by this side's clock
    etag: str = ""
    pages: int = 0
    orders: int = 0  # each counted once
    records: int = 0  # while writing: as many as the table held before
    written_at: datetime = UNKNOWN  # UTC
    owner: str = ""  # of the lease while writing: who writes; when complete: who wrote. Empty: nobody writes any more
    lease: int = 0  # counted up at each change, so that two that are the same are the same
    version: int = FORMAT_VERSION

    @property
    def parameters(self) -> Parameters:
        """The parameters that its records were made with."""
        return Parameters(self.region_id, self.order_type, self.price, self.detail)

    def to_item(self) -> Item:
        """Gives the item as DynamoDB takes it: dates as ISO 8601 in UTC."""
        fields: dict[str, int | str] = {"pk": SNAPSHOT_KEY, **msgspec.to_builtins(self)}
        return {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in fields.items()}

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Reads the item.

        Raises:
            TableError: an attribute is missing or of the wrong type.
        """
        try:
            return msgspec.convert(
                {name: next(iter(value.values())) for name, value in item.items()}, cls, strict=False
            )
        except msgspec.ValidationError as error:
            raise TableError(
                f"the table's item {SNAPSHOT_KEY} is not this program's ({error}): give another table_name, or run "
                "with force to replace it"
            ) from error
