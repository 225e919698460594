"""The item `#snapshot`, which says which snapshot of a market or another source a table has."""

import hashlib
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Literal, Self

import msgspec

from tasks.esi.answers import Answer
from tasks.esi.markets import find_market, name_market
from tasks.orders.choices import Parameters
from tasks.table.errors import TableError
from tasks.table.records import to_attribute
from tasks.table.requests import ONE_MARKET, SNAPSHOT_KEY, Item, Keys

UNKNOWN = datetime.fromtimestamp(0, UTC)
MOST_AHEAD = timedelta(minutes=15)  # of a market's dates
FORMAT_VERSION = 2  # of the items; a snapshot of another version is never up to date: its records are compared


class SnapshotItem(msgspec.Struct, frozen=True, kw_only=True):
    """The item `#snapshot`, whatever the records are of."""

    state: Literal["writing", "complete"] = "complete"  # writing: some records may be of the previous snapshot
    last_modified: datetime = UNKNOWN  # names the snapshot, UTC
    expires: datetime = UNKNOWN  # until then there is no newer one; UTC, by this machine's clock
    etag: str = ""
    pages: int = 0  # of the source
    records: int = 0  # while writing: the number before
    written_at: datetime = UNKNOWN  # UTC
    owner: str = ""  # the run that writes or wrote it; empty if it released the lease unfinished
    lease: int = 0  # incremented at each change, so that no two are equal
    version: int = FORMAT_VERSION

    def to_item(self, keys: Keys = ONE_MARKET) -> Item:
        """Return the item in DynamoDB's notation, dates as ISO 8601 in UTC."""
        return keys.snapshot | {name: to_attribute(value) for name, value in msgspec.to_builtins(self).items()}

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Read the item; raise a TableError if an attribute is missing or of the wrong type."""
        try:
            fields = {name: from_attribute(value) for name, value in item.items()}
            return msgspec.convert(fields, cls, strict=False)
        except msgspec.ValidationError as error:
            raise TableError(
                f"the table's item {SNAPSHOT_KEY} is not this program's ({error}): give another table_name, or run "
                "with force to replace it"
            ) from error


class TableSnapshot(SnapshotItem, frozen=True, kw_only=True):
    """The item `#snapshot` of a market."""

    name: ClassVar = ""  # `last_modified` names the snapshot
    thing: ClassVar = "the market"  # in messages
    market_id: int
    region_id: int  # whose pages have the market's orders; for a structure, its own id
    parameters: Parameters  # of its records
    orders: int = 0  # of the market, each counted once

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Read the item, also of format 1: one market, and the parameters as attributes; a source's is refused."""
        if "source" in item:
            raise TableError(
                f"the table's item {SNAPSHOT_KEY} is of {item['source'].get('S')}, not of a market: give another "
                "table_name, or run with force to replace it"
            )
        if "parameters" not in item:
            parameters = {name: item[name] for name in Parameters.__struct_fields__ if name in item}
            item = item | {"market_id": item.get("region_id", {"NULL": True}), "parameters": {"M": parameters}}
        return super().from_item(item)

    def parse(self, item: Item | None, table_name: str, *, force: bool) -> Self | None:
        """Return the `#snapshot` in an item, None without one.

        An unreadable one counts as none if it is this market's, as does any other market's with `force`.

        Raises:
            TableError: it is another market's, or another program's, or made from another source's pages, and `force`
                is not set.
        """
        if item is None:
            return None
        market, source = find_market(self.market_id), find_market(self.region_id)
        stored_id, source_id = (item.get(name, {}).get("N", "") for name in ("market_id", "region_id"))
        stored_id = stored_id or source_id
        is_other = stored_id not in {"", str(market.id)} or source_id not in {"", str(source.id)}
        if is_other and force:
            return None
        if is_other and stored_id == str(market.id):
            raise TableError(
                f"table {table_name} holds {market} from the pages of {name_market(int(source_id))}, not of {source}: "
                "give the region that the market is in, or run with force to replace its records"
            )
        if is_other:
            raise TableError(
                f"table {table_name} holds {name_market(int(stored_id))}, not {market.id}: give each market its own "
                f'table, such as table_name="{market.table_template}", or use key="market_type", or run with force to '
                "replace its records"
            )
        try:
            return self.from_item(item)
        except TableError as error:
            if force or stored_id:
                return None
            raise TableError(f"table {table_name}: {error}") from error


class SourceSnapshot(SnapshotItem, frozen=True, kw_only=True):
    """The item `#snapshot` of a declared source."""

    thing: ClassVar = "the source"  # in messages
    source: str  # its URL
    parameters: str = msgspec.field(name="declaration")  # of its records, as JSON
    snapshot_header: str | None  # None: the API names no snapshot, `last_modified` is when the run asked
    snapshot: str = ""  # the header's value, empty if it is a date
    orders: int = msgspec.field(name="items", default=0)  # or whatever the items are; each counted once

    @property
    def name(self) -> str | None:
        """The snapshot's name; empty if `last_modified` names it, None if nothing does."""
        return None if self.snapshot_header is None else self.snapshot

    def parse(self, item: Item | None, table_name: str, *, force: bool) -> Self | None:
        """Return the `#snapshot` in an item, None without one, or if it is unreadable.

        Raises:
            TableError: it is of another source, or of a market, and `force` is not set.
        """
        held = item.get("source", {}).get("S", "") if item else ""
        if item is None or (force and held != self.source):
            return None
        if held == self.source:
            try:
                return self.from_item(item)
            except TableError:
                return None
        market_id = (item.get("market_id") or item.get("region_id") or {}).get("N", "")
        what = held or (name_market(int(market_id)) if market_id.isdigit() else "another program's records")
        raise TableError(
            f"table {table_name} holds {what}, not {self.source}: give each source its own table, or run with force to "
            "replace its records"
        )


Marker = TableSnapshot | SourceSnapshot


class Snapshot(msgspec.Struct, frozen=True):
    """The snapshot that the API offers."""

    last_modified: datetime  # names it, UTC
    expires: datetime  # UTC, by this machine's clock; `UNKNOWN` without a plausible `Expires`
    etag: str  # of the first page
    pages: int  # 1 or more
    stored: dict[int, Marker]  # what the table has, by target
    pending: list[int]  # targets for which the table lacks this snapshot, made with the same parameters
    answered: datetime = msgspec.field(default_factory=partial(datetime.now, UTC))  # by the API's clock
    name: str | None = ""  # as the API gives it, empty if `last_modified` names it; None without one

    def __str__(self) -> str:
        # Snapshots with names may have the same second: it is that of the response.
        named = f"-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}" if self.name else ""
        return f"{self.last_modified:%Y%m%dT%H%M%SZ}-{self.pages}p{named}"

    @property
    def is_stored(self) -> bool:
        """Whether the table has it for all targets."""
        return not self.pending


def from_attribute(attribute: Item) -> Any:  # noqa: ANN401 (any program's)
    """Return a value from DynamoDB's notation; numbers as text."""
    [(kind, value)] = attribute.items()
    if kind == "NULL":
        return None
    return {name: from_attribute(each) for name, each in value.items()} if kind == "M" else value


def made_alike(stored: Marker | None, parameters: object) -> Marker | None:
    """Return `stored` if it is complete and made with `parameters` in this format, else None."""
    if stored and stored.state == "complete" and stored.version == FORMAT_VERSION and stored.parameters == parameters:
        return stored
    return None


def is_fresh(stored: Marker, now: datetime, most_ahead: timedelta = MOST_AHEAD) -> bool:
    """Return whether the API has nothing newer yet, by the stored `Expires`.

    It counts only within `most_ahead` of now and of `written_at`: a wrong one must not count when its time comes near.
    """
    return now < stored.expires <= min(now, stored.written_at) + most_ahead


def is_same(stored: Marker, offered: Answer | Snapshot) -> bool:
    """Return whether the table's snapshot is the one on offer."""
    if offered.name is None:
        return False
    return stored.name == offered.name and (offered.name != "" or stored.last_modified == offered.last_modified)


def is_newer(stored: Marker, offered: Answer | Snapshot, most_ahead: timedelta = MOST_AHEAD) -> bool:
    """Return whether the table's snapshot is newer than the one on offer; ignore one more than `most_ahead` ahead."""
    is_dated = stored.name == offered.name == ""
    return is_dated and offered.last_modified < stored.last_modified <= offered.answered + most_ahead
