"""What must hold of a table after every run, failed ones included, and of every read of it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from tasks.table.requests import SNAPSHOT_KEY, Item
from tasks.table.snapshot import Marker, SourceSnapshot, TableSnapshot
from tests.support.chaos.declared import read_parameters
from tests.support.chaos.market import SmallMarket

Markets = dict[int, dict[str, Item]]  # items by market and by item type, which is their `pk` here
FOREIGN: dict[str, Item] = {
    "notes": {"pk": {"S": "notes"}, "text": {"S": "not a record"}},
    "#mine": {"pk": {"S": "#mine"}},
}


class WrongTableError(AssertionError):
    """The table holds something that it must not, or says something that is not so."""


class Truth:
    """The exact tables of the snapshots of a market that were served, made once each."""

    def __init__(self, market: SmallMarket, market_id: int) -> None:
        self._market = market
        self.market_id = market_id
        self._first_index = market.index - 1  # which a table may be of at the start, or a stale answer
        self._tables: dict[tuple[int, str, str, str], dict[str, Item]] = {}

    def table(self, index: int, order_type: str, price: str, detail: str) -> dict[str, Item]:
        """Return the exact table of a snapshot."""
        key = (index, order_type, price, detail)
        if key not in self._tables:
            self._tables[key] = {pk: comparable(item) for pk, item in self._market.truth(*key, self.market_id).items()}
        return self._tables[key]

    def present(self, order_type: str, price: str, detail: str) -> dict[str, Item]:
        """Return the exact table of the snapshot that is on offer."""
        return self.table(self._market.index, order_type, price, detail)

    def served(self, order_type: str, price: str, detail: str) -> Iterable[dict[str, Item]]:
        """Return the exact tables of all snapshots served so far."""
        for index in range(self._first_index, self._market.index + 1):
            yield self.table(index, order_type, price, detail)

    def named(self, snapshot: Marker) -> dict[str, Item]:
        """Return the exact table that `#snapshot` says it is."""
        index = int(snapshot.last_modified.timestamp()) // self._market.every
        if isinstance(snapshot, SourceSnapshot):
            return self.table(index, *read_parameters(snapshot))
        assert isinstance(snapshot, TableSnapshot)
        return self.table(index, *msgspec.structs.astuple(snapshot.parameters))


def read_marker(item: Item) -> Marker:
    """Return the `#snapshot` in an item."""
    return SourceSnapshot.from_item(item) if "declaration" in item else TableSnapshot.from_item(item)


def comparable(item: Item) -> Item:
    """Return an item without `stddev`, whose last digit is the square root's own affair."""
    return {
        name: {"M": {key: figure for key, figure in value["M"].items() if key != "stddev"}} if "M" in value else value
        for name, value in item.items()
    }


def check_markets(
    before: Markets, after: Markets, parameters: tuple[str, str, str], truths: Mapping[int, Truth]
) -> None:
    """Check all markets of a table after a run.

    Args:
        before: their items before the run, by market.
        after: their items now.
        parameters: see `check_table`.
        truths: of the run's markets.

    Raises:
        WrongTableError: see `check_table`; or an item of a market that is not the run's was touched.
    """
    for market_id in before.keys() | after.keys():
        old, new = before.get(market_id, {}), after.get(market_id, {})
        if market_id in truths:
            check_table(old, new, parameters, truths[market_id])
        elif old != new:
            raise WrongTableError(f"market {market_id} is not the run's, and has become {new}, from {old}")


def check_exact(after: Markets, parameters: tuple[str, str, str], truths: Mapping[int, Truth]) -> None:
    """Check that all markets are complete and of the snapshot on offer, as they must be after a run without faults.

    Raises:
        WrongTableError: one is not.
    """
    for market_id, truth in truths.items():
        items = {pk: item for pk, item in after[market_id].items() if pk not in FOREIGN}
        check_table({}, items, parameters, truth)
        wrong = differences(items, truth.present(*parameters))
        if wrong or read_marker(items[SNAPSHOT_KEY]).state != "complete":
            raise WrongTableError(f"market {market_id} after the run without faults: {wrong or 'not complete'}")


def split_markets(items: Mapping[tuple[str, str], Item]) -> Markets:
    """Return the items of a table of many markets by market, with the item type for `pk`."""
    found: Markets = defaultdict(dict)
    for (market_id, name), item in items.items():
        kept = {attribute: value for attribute, value in item.items() if attribute != "sk"}
        found[int(market_id)][name] = comparable(kept | {"pk": {"S": name}})
    return dict(found)


def check_table(
    before: dict[str, Item], after: dict[str, Item], parameters: tuple[str, str, str], truth: Truth
) -> None:
    """Check a market in a table after a run.

    Args:
        before: its items before the run, by item type.
        after: its items now.
        parameters: `order_type`, `price` and `detail` of the run.
        truth: of the market.

    Raises:
        WrongTableError: an item is neither a record of a whole snapshot that was served nor as it was before, a foreign
            item was touched, or `#snapshot` says `complete` and not all of its snapshot is there.
    """
    served = list(truth.served(*parameters))
    for pk, item in after.items():
        if pk != SNAPSHOT_KEY and item != before.get(pk) and all(item != table.get(pk) for table in served):
            raise WrongTableError(
                f"market {truth.market_id}: {item} is of no snapshot that was served, and was not there before: "
                f"{before.get(pk)}"
            )
    for pk in before.keys() & FOREIGN.keys():
        if after.get(pk) != before[pk]:
            raise WrongTableError(f"market {truth.market_id}: the foreign item {before[pk]} has become {after.get(pk)}")
    if SNAPSHOT_KEY in after:
        snapshot = read_marker(after[SNAPSHOT_KEY])
        if snapshot.state == "complete" and (wrong := differences(after, truth.named(snapshot))):
            raise WrongTableError(
                f"market {truth.market_id}: #snapshot says complete, of {snapshot.last_modified}, but {wrong}"
            )


def differences(items: dict[str, Item], wanted: dict[str, Item]) -> str:
    """Describe how a table's records differ from those that it should have; empty if they do not."""
    records = {pk: item for pk, item in items.items() if pk.isdigit()}
    wrong = [pk for pk in sorted(records.keys() | wanted.keys()) if records.get(pk) != wanted.get(pk)]
    return "; ".join(f"{pk} is {records.get(pk)}, not {wanted.get(pk)}" for pk in wrong[:3])
