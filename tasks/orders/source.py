"""A market's orders as the source of a run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tasks.esi.endpoint import Endpoint
from tasks.esi.markets import Market, find_market
from tasks.imports import load, load_early
from tasks.orders.choices import Parameters
from tasks.orders.records import Book

if TYPE_CHECKING:
    from tasks.orders.columns import Orders

# pandas takes half a second to import, and most runs have nothing to aggregate: see `prepare`.


class OrderSource(msgspec.Struct, frozen=True):
    """The orders of a region or a structure, and the records of markets in it."""

    market: Market  # the region or structure whose pages are fetched
    markets: Sequence[Market]  # itself, or places in it
    parameters: Parameters  # of the records

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint with the pages."""
        return self.market.endpoint

    @property
    def facts(self) -> dict[str, Any]:
        """What a run's summary has of it."""
        return {"region_id": self.market.id, **msgspec.structs.asdict(self.parameters)}

    @property
    def has_places(self) -> bool:
        """Whether orders need their place: some market is not the source itself."""
        return any(market != self.market for market in self.markets)

    @property
    def form(self) -> str:
        """A name for the columns that pages are decoded to."""
        return f"{self.market.id}-{self.has_places}"

    def prepare(self) -> None:
        """Import what the other methods need, while pages are in flight."""
        load_early("tasks.orders.columns", "tasks.orders.aggregation")

    def decode(self, body: bytes, what: str) -> "Orders":
        """Decode a page; see `decode_orders`."""
        return cast("Orders", load("tasks.orders.columns").decode_orders(body, what, has_places=self.has_places))

    def join(self, pages: "list[Orders]") -> "Orders":
        """Return the orders of several pages, in order."""
        return cast("Orders", load("tasks.orders.columns").join(pages))

    def make_books(self, chunks: "list[Orders]", market_ids: Sequence[int]) -> list[Book]:
        """Return some markets' records, one per item type, and their numbers of orders; empty the chunks."""
        markets = [None if market == self.market else market for market in map(find_market, market_ids)]
        return cast("list[Book]", load("tasks.orders.aggregation").make_books(chunks, markets, self.parameters))
