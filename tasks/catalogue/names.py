"""Names of item types, regions and trade hubs, and sizes of regions, as of 2026."""

import csv
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).parent / "data"
UNKNOWN_PAGES = 10_000  # more than any region has


class Region(NamedTuple):
    """A region with a market."""

    name: str  # its id if unknown
    pages: int  # as of December 2025
    is_empty: bool  # its only page has no orders


class Hub(NamedTuple):
    """A station with most of its region's trade."""

    name: str
    region_id: int


HUBS = {
    60003760: Hub("Jita 4-4", 10000002),
    60008494: Hub("Amarr", 10000043),
    60011866: Hub("Dodixie", 10000032),
    60004588: Hub("Rens", 10000030),
    60005686: Hub("Hek", 10000042),
}


@cache
def types() -> dict[int, str]:
    """Return the names of the item types by id, ascending."""
    with (DATA / "types.csv").open(encoding="utf-8") as file:
        return {int(row["type_id"]): row["name"] for row in csv.DictReader(file)}


@cache
def regions() -> dict[int, Region]:
    """Return the regions with a market by id, ascending."""
    with (DATA / "regions.csv").open(encoding="utf-8") as file:
        return {
            int(row["region_id"]): Region(row["name"] or row["region_id"], int(row["pages"]), row["empty"] == "1")
            for row in csv.DictReader(file)
        }


def type_name(type_id: int) -> str:
    """Return an item type's name, its id if unknown."""
    return types().get(type_id, str(type_id))


def region_name(region_id: int) -> str:
    """Return a region's name, its id if unknown."""
    return regions()[region_id].name if region_id in regions() else str(region_id)


def market_name(market_id: int) -> str:
    """Return a hub's or a region's name, the id of any other market."""
    return HUBS[market_id].name if market_id in HUBS else region_name(market_id)


def region_pages(region_id: int) -> int:
    """Return how many pages a region has, more than any other if unknown."""
    return regions()[region_id].pages if region_id in regions() else UNKNOWN_PAGES


def find_type(name: str) -> int | None:
    """Return the id of the item type with a name, in any case; None if there is none."""
    return next((type_id for type_id, known in types().items() if known.casefold() == name.casefold()), None)


def list_regions(region_ids: list[int] | None) -> list[int]:
    """Return unique regions, or all for None, the largest first: none that takes long starts last."""
    ids = list(regions()) if region_ids is None else list(dict.fromkeys(region_ids))
    return sorted(ids, key=lambda region_id: -region_pages(region_id))


def name_region(region_id: Any) -> str:  # noqa: ANN401 (unvalidated)
    """Return a region's id, with its name if it has one."""
    return " ".join(dict.fromkeys([str(region_id), region_name(region_id)]))
