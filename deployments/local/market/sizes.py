"""The number of pages of the stand-in's regions and structures."""

from deployments.local.market import structures
from tasks.catalogue.names import regions

MADE_UP = range(19_000_001, 19_010_000)  # not in ESI; the last four digits are the number of pages


def region_pages(region_id: int) -> int | None:
    """Return the number of pages of a region or structure, 0 if it has no orders, None if it does not exist."""
    if region_id in MADE_UP or region_id in structures.OPEN:
        return region_id % 10_000
    region = regions().get(region_id)
    return None if region is None else 0 if region.is_empty else region.pages
