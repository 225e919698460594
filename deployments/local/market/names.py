"""Names of item types and regions, and what else the stand-in knows of them."""

from functools import cache
from pathlib import Path

import pandas as pd

DATA = Path(__file__).parent / "data"
MADE_UP = range(19_000_001, 19_010_000)  # regions that ESI does not have, of as many pages as the last four digits say


@cache
def types() -> pd.DataFrame:
    """Gives the item types: index `type_id` ascending; `name`, `best_buy` and `best_sell` (ISK), `popularity`."""
    return pd.read_csv(DATA / "types.csv", index_col="type_id")


@cache
def regions() -> pd.DataFrame:
    """Gives the regions with a market: index `region_id`; `name` (of some unknown), `pages`, `is_empty` (0 or 1)."""
    return pd.read_csv(DATA / "regions.csv", index_col="region_id").rename(columns={"empty": "is_empty"})


def region_pages(region_id: int) -> int | None:
    """Gives how many pages of orders a region has, 0 if it is empty, None if there is no such region."""
    if region_id in MADE_UP:
        return region_id % 10_000
    if region_id not in regions().index:
        return None
    return 0 if regions().is_empty[region_id] else int(regions().pages[region_id])


def type_name(type_id: int) -> str:
    """Gives an item type's name, its id if unknown."""
    return str(types().name.get(type_id, type_id))


def region_name(region_id: int) -> str:
    """Gives a region's name, its id if unknown."""
    name = regions().name.get(region_id)
    return name if isinstance(name, str) else str(region_id)


def find_type(name: str) -> int | None:
    """Gives the id of the item type of a name, whatever its case; None if there is none."""
    found = types().index[types().name.str.casefold() == name.casefold()]
    return int(found[0]) if len(found) else None
