"""Markets: places whose orders are aggregated together."""

import msgspec

from tasks.esi.endpoint import Endpoint

FIRST_STRUCTURE_ID = 1_000_000_000_000
MILLION = 1_000_000
IDS = {  # of each kind
    "region": range(10 * MILLION, 20 * MILLION),
    "system": range(30 * MILLION, 40 * MILLION),
    "station": range(60 * MILLION, 70 * MILLION),
    "structure": range(FIRST_STRUCTURE_ID, 2**63),
}
# The field of an order that has the id.
PLACES = {"system": "system_id", "station": "location_id", "structure": "location_id"}


class Market(msgspec.Struct, frozen=True):
    """A market. ESI lists orders by region and by structure; a region's orders name their system and location."""

    id: int
    kind: str  # region, system, station or structure

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def endpoint(self) -> Endpoint:
        """ESI's orders of a region or a structure; a region's require `order_type`, and ignore it without `type_id`."""
        hint = f"is there a market {self}?"
        if self.kind == "structure":
            return Endpoint(name=str(self), noun="the structure", hint=hint, path=f"/markets/structures/{self.id}/")
        params = {"order_type": "all"}
        return Endpoint(name=str(self), hint=hint, path=f"/markets/{self.id}/orders", params=params)

    @property
    def table_template(self) -> str:
        """The default name of its own table."""
        names = {"region": "MarketData-{region_id}", "structure": "StructureMarket-{structure_id}"}
        return names.get(self.kind, "MarketData-{market_id}")


def find_market(market_id: int) -> Market:
    """Return the market with an id; a region if the id is in no range."""
    return Market(market_id, next((kind for kind, ids in IDS.items() if market_id in ids), "region"))


def is_market(market_id: int) -> bool:
    """Return whether an id is in a market's range."""
    return any(market_id in ids for ids in IDS.values())


def name_market(market_id: int) -> str:
    """Return a market's name for messages: `region 10000002`."""
    return str(find_market(market_id))
