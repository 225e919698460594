"""The item `#snapshot`, which tells readers and runs where a table stands."""

from datetime import UTC, datetime
from functools import partial
from typing import Literal, Self

import msgspec

from tasks.esi.answers import MAX_AHEAD, Answer
from tasks.esi.markets import Market
from tasks.orders.choices import Detail, OrderType, Price
from tasks.table.errors import TableError
from tasks.table.keys import ONE_MARKET, Keys
from tasks.table.requests import SNAPSHOT_KEY, Item

UNKNOWN = datetime.fromtimestamp(0, UTC)
FORMAT_VERSION = 1  # of the items; a table of another version is compared and rewritten, never taken as up to date


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

    def to_item(self, keys: Keys = ONE_MARKET) -> Item:
        """Return the item as DynamoDB takes it: dates as ISO 8601 in UTC."""
        fields: dict[str, int | str] = msgspec.to_builtins(self)
        return keys.snapshot | {
            name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in fields.items()
        }

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Read the item.

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


class Snapshot(msgspec.Struct, frozen=True):
    """One generation of a market's order book, on offer."""

    region_id: int
    last_modified: datetime  # names it, UTC
    expires: datetime  # UTC by this machine's clock; `UNKNOWN` if ESI says nothing that can be believed
    etag: str  # of the first page
    pages: int  # 1 or more
    stored: TableSnapshot | None  # where the table stands
    is_stored: bool  # the table holds this snapshot, made with the same parameters
    answered: datetime = msgspec.field(default_factory=partial(datetime.now, UTC))  # it was on offer, by ESI's clock

    def __str__(self) -> str:
        return f"{self.last_modified:%Y%m%dT%H%M%SZ}-{self.pages}p"


def parse_snapshot(item: Item | None, table_name: str, market: Market, *, force: bool) -> TableSnapshot | None:
    """Return what the item `#snapshot` says, None if there is no such item.

    One that cannot be read counts as none if it is this market's, or with `force`.

    Raises:
        TableError: it is another market's, or another program's, and `force` is not set.
    """
    if item is None:
        return None
    stored_region = item.get("region_id", {}).get("N", "")
    if stored_region not in {"", str(market.id)} and not force:
        raise TableError(
            f"table {table_name} holds region {stored_region}, not {market.id}: give each market its own table, such "
            f'as table_name="{market.table_template}", or run with force to replace its records'
        )
    try:
        return TableSnapshot.from_item(item)
    except TableError as error:
        if force or stored_region:
            return None
        raise TableError(f"table {table_name}: {error}") from error


def made_alike(stored: TableSnapshot | None, parameters: Parameters) -> TableSnapshot | None:
    """Return `stored` if its records are all there and were made with `parameters`, by this format."""
    if stored is None or stored.state != "complete" or stored.version != FORMAT_VERSION:
        return None
    return stored if stored.parameters == parameters else None


def is_fresh(stored: TableSnapshot, now: datetime) -> bool:
    """Return whether ESI has nothing newer yet, by the stored `Expires`; one further ahead than can be says nothing.

    Ahead of now, and of when it was written: what was said 23 hours ahead comes near in the end.
    """
    return now < stored.expires <= min(now, stored.written_at) + MAX_AHEAD


def is_newer(stored: TableSnapshot, offered: Answer | Snapshot) -> bool:
    """Return whether the table has a newer snapshot than is on offer; one further ahead than can be is not newer."""
    return offered.last_modified < stored.last_modified <= offered.answered + MAX_AHEAD
