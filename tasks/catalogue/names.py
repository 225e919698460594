"""Names of item types and regions, as of 2026, and what else is known of them."""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

DATA = Path(__file__).parent / "data"


@cache
def types() -> pd.DataFrame:
    """Return the item types: index `type_id` ascending; `name`, `best_buy` and `best_sell` (ISK), `popularity`."""
    return pd.read_csv(DATA / "types.csv", index_col="type_id")


@cache
def regions() -> pd.DataFrame:
    """Return the regions with a market: index `region_id`; `name` (of some unknown), `pages`, `is_empty` (0 or 1)."""
    return pd.read_csv(DATA / "regions.csv", index_col="region_id").rename(columns={"empty": "is_empty"})


def type_name(type_id: int) -> str:
    """Return an item type's name, its id if unknown."""
    return str(types().name.get(type_id, type_id))


def region_name(region_id: int) -> str:
    """Return a region's name, its id if unknown."""
    name = regions().name.get(region_id)
    return name if isinstance(name, str) else str(region_id)


def find_type(name: str) -> int | None:
    """Return the id of the item type of a name, whatever its case; None if there is none."""
    found = types().index[types().name.str.casefold() == name.casefold()]
    return int(found[0]) if len(found) else None


def list_regions(region_ids: list[int] | None) -> list[int]:
    """Return regions, each once, the largest first, so that none of the long ones begins last; all if given None.

    How large they are is as of December 2025; those that are unknown come first.
    """
    pages = regions().pages
    wanted = pages.index.tolist() if region_ids is None else list(dict.fromkeys(region_ids))
    return sorted(wanted, key=lambda region_id: -pages.get(region_id, 10_000))


def name_region(region_id: Any) -> str:  # noqa: ANN401 (as it was given, perhaps wrong)
    """Return a region's id, with its name if it has one."""
    return " ".join(dict.fromkeys([str(region_id), region_name(region_id)]))
