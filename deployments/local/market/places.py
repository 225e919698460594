"""Each region's places in the stand-in: stations, player structures and solar systems; and its number of pages."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.catalogue.names import HUBS, regions

MADE_UP = range(19_000_001, 19_010_000)  # regions that ESI does not have; the last four digits are the number of pages
HUB_IDS = {hub.region_id: hub_id for hub_id, hub in HUBS.items()}  # by region
HUB_SYSTEMS = {60003760: 30000142, 60008494: 30002187, 60011866: 30002659, 60004588: 30002510, 60005686: 30002053}
OPEN_STRUCTURES = range(1_000_000_000_001, 1_000_000_010_000)  # as many pages as the last four digits say
OPEN_SYSTEM = 30_000_240  # where they lie
STATIONS, SYSTEMS, STRUCTURES = 40, 20, 10  # of a region
FIRST_STATION, FIRST_SYSTEM = 60_100_000, 30_100_000  # above the real ones
FIRST_STRUCTURE = 1_030_000_000_000  # above those that have a market of their own
HUB_SHARE = 0.7  # of the orders in a hub's region, buy orders in structures apart
BULK = 100_000_000  # units; in a hub's region, orders of more all lie in the hub
STRUCTURE_SHARE = 0.25  # of the buy orders; it was 0.26 in Domain on 2025-03-29

Ids = npt.NDArray[np.int64]


class Places(NamedTuple):
    """A region's places: its stations, the busiest first, then its structures."""

    location_ids: Ids
    system_ids: Ids


def find_places(region_id: int) -> Places:
    """Return the places of a region, which no other region has, or of a structure, which is its own only place."""
    if region_id in OPEN_STRUCTURES:
        return Places(np.array([region_id]), np.array([OPEN_SYSTEM]))
    number = (region_id // 1_000_000 - 10) * 10_000 + region_id % 10_000  # a different one for each region
    stations = FIRST_STATION + number * STATIONS + np.arange(STATIONS)
    systems = FIRST_SYSTEM + number * SYSTEMS + np.arange(SYSTEMS)
    if hub_id := HUB_IDS.get(region_id):
        stations[0], systems[0] = hub_id, HUB_SYSTEMS[hub_id]
    player_built = FIRST_STRUCTURE + number * STRUCTURES + np.arange(STRUCTURES)
    in_system = np.concatenate([np.arange(STATIONS) * SYSTEMS // STATIONS, 1 + np.arange(STRUCTURES)])
    return Places(np.concatenate([stations, player_built]), systems[in_system])


def draw_places(
    seed: int, region_id: int, is_buy: npt.NDArray[np.bool_], units: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """Return the position of each order's place in `find_places`; sell orders lie in stations alone."""
    if region_id in OPEN_STRUCTURES:
        return np.zeros(len(is_buy), "uint8")
    random = np.random.default_rng([seed, region_id, 2])  # of its own: no other property depends on the places
    weights = 1 / np.arange(1, STATIONS + 1)
    has_hub = region_id in HUB_IDS
    is_bulk = has_hub & (units > BULK)
    if has_hub:
        weights[0] = weights[1:].sum() * HUB_SHARE / (1 - HUB_SHARE)
    stations = random.choice(STATIONS, len(is_buy), p=weights / weights.sum())
    in_structure = is_buy & (random.random(len(is_buy)) < STRUCTURE_SHARE)
    player_built = STATIONS + random.integers(STRUCTURES, size=len(is_buy))
    return np.select([is_bulk, in_structure], [0, player_built], stations).astype("uint8")


def region_pages(region_id: int) -> int | None:
    """Return the number of pages of a region or structure, 0 if it has no orders, None if it does not exist."""
    if region_id in MADE_UP or region_id in OPEN_STRUCTURES:
        return region_id % 10_000
    region = regions().get(region_id)
    return None if region is None else 0 if region.is_empty else region.pages
