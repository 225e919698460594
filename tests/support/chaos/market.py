"""Markets small enough for a thousand runs, with the truth about each of their snapshots."""

import gzip
import random
from collections.abc import Callable

import msgspec

from deployments.local.market.market import Generation, Reply, Request
from deployments.local.market.places import HUB_IDS
from tasks.catalogue.names import regions
from tasks.table.requests import Item
from tests.support import reference
from tests.support.esi import EsiMarket
from tests.support.truth import to_item

TYPES, PAGE_ORDERS = 40, 25
REGION, STATION, SYSTEM = 10000015, 60000001, 30000001
REST = [(60000002, SYSTEM), (60000003, SYSTEM + 1)]  # stations of fewer orders, and their systems


class SmallMarket(EsiMarket):
    """A few pages of a few orders; a third of the types change from one snapshot to the next."""

    def __init__(
        self,
        seed: int,
        clock: Callable[[], float],
        types: int = TYPES,
        page_orders: int = PAGE_ORDERS,
        region_id: int = REGION,
        station_id: int = STATION,
    ) -> None:
        super().__init__(seed=seed, clock=clock)
        self._types, self._page_orders = types, page_orders
        self.region_id = region_id
        self._places = [(station_id, SYSTEM), *REST]

    def orders(self, index: int) -> list[reference.Order]:
        """Return the orders of a snapshot, in the order of its pages."""
        orders = []
        for type_id in range(34, 34 + self._types):
            version = (index + type_id) // 3
            draw = random.Random(f"{self.seed}/{type_id}/{version}")
            for number in range(draw.choice([0, 1, 2, 3, 4])):
                order_id = type_id * 1000 + number + version % 2 * 100
                cents = draw.choice([1, 570, 10**6 + 1, draw.randint(1, 10**9)])
                orders.append(
                    reference.Order(order_id, type_id, cents / 100, draw.randint(1, 10**9), draw.random() < 0.3)
                )
        random.Random(f"{self.seed}/{index}").shuffle(orders)
        return orders

    def find_place(self, order: reference.Order) -> tuple[int, int]:
        """Return the station of an order, and its system."""
        return self._places[order.order_id % 7 % len(self._places)]  # three of seven are the first's

    def truth(
        self, index: int, order_type: str, price: str, detail: str, market_id: int | None = None
    ) -> dict[str, Item]:
        """Return the exact table of a snapshot, of the region if no market in it is given."""
        orders = self.orders(index)
        if market_id not in {None, self.region_id}:
            orders = [order for order in orders if market_id in self.find_place(order)]
        records = reference.aggregate(orders, order_type, price, detail)
        return {str(type_id): to_item(str(type_id), record) for type_id, record in records.items()}

    def _make(self, region_id: int, index: int) -> Generation:
        assert region_id == self.region_id
        return self.generation(index)

    def generation(self, index: int) -> Generation:
        """Return a snapshot as it is served."""
        rows = [
            order._asdict() | dict(zip(("location_id", "system_id"), self.find_place(order), strict=True))
            for order in self.orders(index)
        ]
        size = self._page_orders - index // 2 % 3 * 10  # so that the number of pages changes
        pages = [gzip.compress(msgspec.json.encode(rows[n : n + size]), 1) for n in range(0, max(1, len(rows)), size)]
        return Generation(index * self.every, pages)

    def give_page(self, request: Request, generation: Generation) -> Reply:
        """Return a page that has expired already, so that each run asks for the next."""
        reply = super().give_page(request, generation)
        return Reply(reply.status, {**reply.headers, "Expires": ""}, reply.body)


class SmallUniverse(SmallMarket):
    """All regions, each a small market of two pages at most; a hub is the busiest station of its region."""

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        super().__init__(seed, clock)
        self.markets = {
            region_id: SmallMarket(
                seed * 100_000 + region_id,
                clock,
                types=0 if region.is_empty else TYPES,
                page_orders=70,
                region_id=region_id,
                station_id=HUB_IDS.get(region_id, STATION),
            )
            for region_id, region in regions().items()
        }

    def _make(self, region_id: int, index: int) -> Generation:
        return self.markets[region_id].generation(index)
