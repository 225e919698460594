"""Markets and their paths in ESI: regions, and player structures."""

FIRST_STRUCTURE_ID = 1_000_000_000_000


def is_structure(region_id: int) -> bool:
    """Return whether an id is a player structure's; they have other numbers than regions."""
    return region_id >= FIRST_STRUCTURE_ID


def name_market(region_id: int) -> str:
    """Name a region, or a structure, in messages."""
    return f"{'structure' if is_structure(region_id) else 'region'} {region_id}"


def orders_path(region_id: int) -> str:
    """Return the path of a region's orders, or of a structure's."""
    return f"/markets/structures/{region_id}/" if is_structure(region_id) else f"/markets/{region_id}/orders"


def orders_params(region_id: int) -> dict[str, str]:
    """Return what to ask for: a region's orders have a type that must be named, and is ignored without a `type_id`."""
    return {} if is_structure(region_id) else {"order_type": "all"}
