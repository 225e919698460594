"""A region's order book as a pure function of seed, region and snapshot number.

From one snapshot to the next, one in ten item types changes some of its orders, and a few orders appear or vanish.
"""

import gzip
from collections.abc import Iterator
from functools import cache, lru_cache

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from deployments.local.market.places import draw_places, find_places, region_pages
from tasks.catalogue.names import DATA

PAGE_ORDERS = 1000
TYPE_PERIOD = 10  # snapshots between two changes of a type
ORDER_PERIOD = 3  # changes of the type for one change of an order; a type's first order changes each time
PRESENCE_PERIOD = 50  # snapshots until an order may appear or vanish
ABSENT = 0.02  # share of the orders that are absent
GZIP_LEVEL = 5  # a tenth of the size, as ESI's pages; higher levels take twice as long for 3 %
ORDER_ISK = 100_000_000  # value of a typical order
FIRST_ORDER_ID = 6_000_000_000
FIRST_ISSUED = 1_700_000_000  # unix time
RANGES = ["station", "region", "solarsystem", "1", "2", "3", "4", "5", "10", "20", "30", "40"]

Bits = npt.NDArray[np.uint64]


def make_orders(seed: int, region_id: int, index: int) -> pd.DataFrame:
    """Return a row per order of a region's snapshot, in the order of the pages, with the fields of ESI's responses.

    `index` is the snapshot's unix time divided by the seconds between two.
    """
    slots = make_slots(seed, region_id)
    orders = slots[is_present(slots.noise.to_numpy("uint64"), index)]
    noise = orders.noise.to_numpy("uint64")
    change = (index + orders.type_noise.to_numpy("uint64") % TYPE_PERIOD) // TYPE_PERIOD
    lag = np.where(orders.is_first, 0, (change + noise) % ORDER_PERIOD)
    version = (change - lag).astype("uint64")
    draw = mix(noise ^ mix(version))
    away = 0.5 * uniform(draw) ** 3  # most prices are close to the best
    factor = np.where(orders.is_buy_order, 1 - away, 1 + away)
    total = orders.volume_total.to_numpy()
    remain = np.maximum(1, np.ceil(total * uniform(mix(draw)))).astype("int64")
    places, place = find_places(region_id), orders.place.to_numpy()
    issued = pd.to_datetime(FIRST_ISSUED + (draw % 10_000_000).astype("int64"), unit="s")
    return pd.DataFrame(
        {
            "duration": np.array([1, 3, 7, 14, 30, 90, 90, 90])[noise % 8],
            "is_buy_order": orders.is_buy_order,
            "issued": issued.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "location_id": places.location_ids[place],
            "min_volume": 1,
            "order_id": orders.order_id,
            "price": np.maximum(0.01, np.round(orders.best.to_numpy() * factor, 2)),
            "range": np.array(RANGES, "object")[np.where(orders.is_buy_order, noise // 8 % len(RANGES), 1)],
            "system_id": places.system_ids[place],
            "type_id": orders.type_id,
            "volume_remain": remain,
            "volume_total": total,
        }
    ).reset_index(drop=True)


@cache
def read_types() -> pd.DataFrame:
    """Return the item types by id: `best_buy` and `best_sell` (ISK) and `popularity`, some of them unknown."""
    return pd.read_csv(DATA / "types.csv", index_col="type_id")


@lru_cache(maxsize=128)
def make_slots(seed: int, region_id: int) -> pd.DataFrame:
    """Return all orders that a region ever has, with their constant properties."""
    pages = region_pages(region_id)
    size = round((pages * PAGE_ORDERS - 400) / (1 - ABSENT)) if pages else 0
    random = np.random.default_rng([seed, region_id])
    known = read_types()
    weights = known.popularity.fillna(0.5).to_numpy()
    likely = np.argsort(random.gumbel(size=len(known)) + np.log(weights))[::-1]
    first = likely[: round(0.45 * size)]  # one order of each of these types
    share = weights[first] ** 0.7
    rest = random.choice(first, size - len(first), p=share / share.sum()) if len(first) else first
    slots = known.iloc[np.concatenate([first, rest])].reset_index()
    is_first = np.arange(size) < len(first)
    buys = 0.4 * size / max(1, size - len(first))
    is_buy = (~is_first & (random.random(size) < buys) & slots.best_buy.notna()) | slots.best_sell.isna()
    best = random.uniform(0.9, 1.2) * np.where(is_buy, slots.best_buy, slots.best_sell)
    units = np.clip(ORDER_ISK / best, 0.5, 1e8) * (random.pareto(1.2, size) + 0.05)
    base = mix(np.uint64(seed) ^ mix(np.full(1, region_id, "uint64")))
    return pd.DataFrame(
        {
            "type_id": slots.type_id,
            "order_id": FIRST_ORDER_ID + (region_id % 1000) * 1_000_000 + np.arange(size),
            "is_buy_order": is_buy,
            "is_first": is_first,
            "best": best,
            "place": draw_places(seed, region_id, np.asarray(is_buy), units),
            "volume_total": np.ceil(units).astype("int64"),
            "noise": mix(base ^ np.arange(size, dtype="uint64")),
            "type_noise": mix(base ^ slots.type_id.to_numpy("uint64") << np.uint64(32)),
        }
    ).sample(frac=1, random_state=np.random.default_rng([seed, region_id, 1]), ignore_index=True)


def is_present(noise: Bits, index: int) -> npt.NDArray[np.bool_]:
    """Return which orders are present; drawn every `PRESENCE_PERIOD` snapshots, for each order at a different one."""
    epoch = (np.uint64(index) + noise % PRESENCE_PERIOD) // PRESENCE_PERIOD
    return uniform(mix(noise + mix(epoch))) >= ABSENT


def mix(bits: Bits) -> Bits:
    """Return pseudorandom bits, by splitmix64's finalizer."""
    with np.errstate(over="ignore"):
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))


def uniform(bits: Bits) -> npt.NDArray[np.float64]:
    """Return bits as numbers in [0, 1)."""
    return (bits >> np.uint64(11)) / 2.0**53


def make_bodies(orders: pd.DataFrame) -> Iterator[bytes]:
    """Yield pages as ESI sends them, as gzipped JSON; a region without orders has one page, `[]`."""
    names = list(orders.columns)
    rows = list(zip(*(orders[name].tolist() for name in names), strict=True))
    for start in range(0, max(1, len(rows)), PAGE_ORDERS):
        page = [dict(zip(names, row, strict=True)) for row in rows[start : start + PAGE_ORDERS]]
        yield gzip.compress(msgspec.json.encode(page), GZIP_LEVEL, mtime=0)
