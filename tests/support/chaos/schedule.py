"""What a schedule of faults is, and how it is drawn from a seed."""

import random
from typing import Literal, get_args

import msgspec

from tasks.orders.choices import Detail, Key, OrderType, Price
from tests.support.chaos.declared import PARAMETERS
from tests.support.chaos.market import REGION, STATION, SYSTEM
from tests.support.faults import market, store
from tests.support.faults.plan import Fault

Start = Literal[
    "no table", "empty", "complete", "complete, other parameters", "interrupted", "abandoned", "no snapshot"
]


class Schedule(msgspec.Struct, frozen=True):
    """A table as it is at the start, and the runs that then meet faults."""

    seed: int
    start: Start
    order_type: OrderType
    price: Price
    detail: Detail
    fetch_concurrency: int
    runs: int  # one after the other
    at_once: int  # runs at the same time
    market_faults: list[Fault]
    store_faults: list[Fault]
    markets: list[int]  # in one table with key `market_type`; none: the region, with key `type`
    is_declared: bool = False  # the region is kept by declaration, by the flow `paged-api`

    @property
    def key(self) -> Key:
        """How the table is keyed."""
        return "market_type" if self.markets else "type"

    @property
    def faults(self) -> list[Fault]:
        """All faults."""
        return [*self.market_faults, *self.store_faults]

    def without(self, fault: Fault) -> "Schedule":
        """Return the same schedule without one fault."""
        return msgspec.structs.replace(
            self,
            market_faults=[other for other in self.market_faults if other is not fault],
            store_faults=[other for other in self.store_faults if other is not fault],
        )


def draw_schedule(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    draw = random.Random(seed)
    schedule = Schedule(
        seed=seed,
        start=draw.choice(get_args(Start)),
        order_type=draw.choice(get_args(OrderType)),
        price=draw.choice(get_args(Price)),
        detail=draw.choice(get_args(Detail)),
        fetch_concurrency=draw.choice([1, 2, 20]),
        runs=draw.choice([1, 1, 2]),
        at_once=draw.choice([1, 1, 1, 1, 2, 3]),
        market_faults=[draw_market_fault(draw) for _ in range(draw.randint(0, 4))],
        store_faults=[draw_store_fault(draw) for _ in range(draw.randint(0, 4))],
        markets=draw.choice([[], [], [REGION, STATION, SYSTEM]]),
    )
    return declare(schedule) if draw.choice([True, False, False, False]) else schedule


def declare(schedule: Schedule) -> Schedule:
    """Return a schedule whose market is kept by declaration; a negative price is none of its faults."""
    order_type, price, detail = PARAMETERS
    kinds = {"negative price": "missing field"}
    faults = [
        msgspec.structs.replace(fault, kind=kinds.get(fault.kind, fault.kind)) for fault in schedule.market_faults
    ]
    return msgspec.structs.replace(
        schedule,
        order_type=order_type,
        price=price,
        detail=detail,
        market_faults=faults,
        markets=[],
        is_declared=True,
    )


def draw_market_fault(draw: random.Random) -> Fault:
    """Draw one fault of the market: mostly one that may pass, and a few of them; sometimes without end."""
    passing = [kind for kind in market.KINDS if kind not in market.LASTING]
    where = draw.choice(["", "", "HEAD", "1", "2", "3"])
    return Fault(
        kind=draw.choice([*market.KINDS, *passing, *passing, *["moves on", "stale"] * 8]),
        where=where,
        times=draw.choice([1, 1, 1, 2, 3, 40]),
        skip=draw.choice([0, 1, 2, 4]) if not where else 0,
        probability=draw.choice([1.0, 1.0, 1.0, 0.5]),
        after_seconds=draw.choice([0.0, 0.0, 0.0, 0.05]),
    )


def draw_store_fault(draw: random.Random) -> Fault:
    """Draw one fault of the store."""
    return Fault(
        kind=draw.choice(store.KINDS),
        where=draw.choice(["", "GetItem", "Scan", "PutItem", "PutItem", "BatchWriteItem", "BatchWriteItem"]),
        times=draw.choice([1, 1, 2, 3, 8, 40]),
        skip=draw.choice([0, 0, 1, 2]),
        probability=draw.choice([1.0, 1.0, 0.5]),
        after_seconds=draw.choice([0.0, 0.0, 0.05]),
    )
