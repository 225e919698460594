"""Markets: places whose orders make records together, known by their ids."""

import msgspec

FIRST_STRUCTURE_ID = 1_000_000_000_000
MILLION = 1_000_000
# By kind: the first and the last id.
RANGES = {
    "region": (10 * MILLION, 20 * MILLION - 1),
    "system": (30 * MILLION, 40 * MILLION - 1),
    "station": (60 * MILLION, 70 * MILLION - 1),
    "structure": (FIRST_STRUCTURE_ID, 2**63 - 1),
}
PLACES = {
    "system": "system_id",
    "station": "location_id",
    "structure": "location_id",
}  # which field of an order says so


class Market(msgspec.Struct, frozen=True):
    """A market. ESI lists the orders of regions and of structures; a region's orders say in which place they are."""

    id: int
    kind: str  # region, system, station or structure

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def path(self) -> str:
        """Where ESI lists the orders of a region or a structure."""
        return f"/markets/structures/{self.id}/" if self.kind == "structure" else f"/markets/{self.id}/orders"

    @property
    def params(self) -> dict[str, str]:
        """The query of that list: a region's requires `order_type`, and ignores it without a `type_id`."""
        return {} if self.kind == "structure" else {"order_type": "all"}

    @property
    def table_template(self) -> str:
        """The name of a table of its own."""
        names = {"region": "MarketData-{region_id}", "structure": "StructureMarket-{structure_id}"}
        return names.get(self.kind, "MarketData-{market_id}")


def find_market(market_id: int) -> Market:
    """Return the market of an id, a region's if the id is no market's."""
    kinds = [kind for kind, (first, last) in RANGES.items() if first <= market_id <= last]
    return Market(market_id, kinds[0] if kinds else "region")


def is_market(market_id: int) -> bool:
    """Return whether an id is a market's."""
    return any(first <= market_id <= last for first, last in RANGES.values())


def name_market(market_id: int) -> str:
    """Name a market in messages: `region 10000002`."""
    return str(find_market(market_id))
