"""Records, as aggregation makes them."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

import msgspec

Figures = dict[str, float | int]  # of one side's orders, by name
Value = str | bool | int | float | Decimal | Figures | None


class AnyRecord(Protocol):
    """A record of any source."""

    @property
    def name(self) -> str:
        """The key, as text."""

    @property
    def attributes(self) -> dict[str, Value]:
        """The attributes besides the key; those that are None are left out of the item."""


class Record(NamedTuple):
    """An item type's record, at a tenth of its item's memory."""

    type_id: int
    price: float  # ISK
    volume: int  # units
    buy: Figures | None = None  # with details: a side's figures, empty if it has no orders
    sell: Figures | None = None

    @property
    def name(self) -> str:
        """The key: the item type's id."""
        return str(self.type_id)

    @property
    def attributes(self) -> dict[str, Value]:
        """The attributes."""
        return {"price": self.price, "volume": self.volume, "buy": self.buy, "sell": self.sell}


class Book(msgspec.Struct, frozen=True):
    """The records of a target, and the number of orders or other items behind them."""

    records: Sequence[AnyRecord]
    orders: int  # of a market: on both sides, each counted once
