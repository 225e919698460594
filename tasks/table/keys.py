"""How the items of a market are keyed."""

import msgspec

from tasks.table.requests import SNAPSHOT_KEY, Item


class Keys(msgspec.Struct, frozen=True):
    """The keys of one market's items: `34`, or `10000002#34` in a table that several regions share."""

    region_id: int | None = None  # None: the table has one market

    @property
    def prefix(self) -> str:
        """What the keys of all records begin with."""
        return f"{self.region_id}#" if self.region_id else ""

    @property
    def snapshot(self) -> Item:
        """The key of the item `#snapshot`."""
        return {"pk": {"S": f"{SNAPSHOT_KEY}#{self.region_id}" if self.region_id else SNAPSHOT_KEY}}

    def make(self, name: str) -> Item:
        """Return the key of an item type's record."""
        return {"pk": {"S": self.prefix + name}}

    def read(self, item: Item) -> str:
        """Return what the item is of: an item type's id, or whatever others have put there."""
        return str(item["pk"]["S"]).removeprefix(self.prefix)


ONE_MARKET = Keys()
