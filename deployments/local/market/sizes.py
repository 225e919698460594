"""How many pages of orders the stand-in's regions have."""

from deployments.local.market import structures
from tasks.catalogue.names import regions

MADE_UP = range(19_000_001, 19_010_000)  # regions that ESI does not have, of as many pages as the last four digits say


def region_pages(region_id: int) -> int | None:
    """Return how many pages of orders a region or structure has, 0 if it is empty, None if there is none such."""
    if region_id in MADE_UP or region_id in structures.OPEN:
        return region_id % 10_000
    region = regions().get(region_id)
    return None if region is None else 0 if region.is_empty else region.pages
