"""Markets whose orders ESI lists: regions, and player structures."""

import msgspec

FIRST_STRUCTURE_ID = 1_000_000_000_000


class Market(msgspec.Struct, frozen=True):
    """A market, and where ESI lists its orders."""

    id: int
    kind: str  # region or structure
    path: str
    params: dict[str, str]  # of the query
    table_template: str  # the name of a table of its own

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


def find_market(market_id: int) -> Market:
    """Return the market of an id; structures and regions have different ranges of ids."""
    if market_id >= FIRST_STRUCTURE_ID:
        return Market(market_id, "structure", f"/markets/structures/{market_id}/", {}, "StructureMarket-{structure_id}")
    # ESI requires `order_type` here, and ignores it without a `type_id`.
    return Market(market_id, "region", f"/markets/{market_id}/orders", {"order_type": "all"}, "MarketData-{region_id}")


def name_market(market_id: int) -> str:
    """Name a market in messages: `region 10000002`."""
    return str(find_market(market_id))
