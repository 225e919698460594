"""A market small enough for a thousand runs, with the truth about each of its snapshots."""

import gzip
import hashlib
import random
from collections.abc import Callable

import msgspec

from deployments.local.market.market import Generation, Market, Reply, Request
from tasks.table.requests import Item
from tests.support import reference
from tests.support.truth import to_item

TYPES, PAGE_ORDERS = 40, 25
REGION = 10000015


class SmallMarket(Market):
    """A few pages of a few orders; a third of the types change from one snapshot to the next."""

    def __init__(
        self, seed: int, clock: Callable[[], float], types: int = TYPES, page_orders: int = PAGE_ORDERS
    ) -> None:
        super().__init__(seed=seed, clock=clock)
        self._types, self._page_orders = types, page_orders

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

    def truth(self, index: int, order_type: str, price: str, detail: str) -> dict[str, Item]:
        """Return the exact table of a snapshot."""
        records = reference.aggregate(self.orders(index), order_type, price, detail)
        return {str(type_id): to_item(str(type_id), record) for type_id, record in records.items()}

    def _make(self, region_id: int, index: int) -> Generation:
        assert region_id == REGION
        rows = [order._asdict() for order in self.orders(index)]
        size = self._page_orders - index // 2 % 3 * 10  # so that the number of pages changes
        pages = [gzip.compress(msgspec.json.encode(rows[n : n + size]), 1) for n in range(0, max(1, len(rows)), size)]
        return Generation(index * self.every, pages, [hashlib.sha256(page).hexdigest() for page in pages])

    def give_page(self, request: Request, generation: Generation) -> Reply:
        """Return a page that has expired already, so that each run asks for the next."""
        reply = super().give_page(request, generation)
        return Reply(reply.status, {**reply.headers, "Expires": ""}, reply.body)
