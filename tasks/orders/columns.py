"""Decodes a page's JSON to columns of orders."""

from collections import UserDict
from mmap import mmap
from operator import attrgetter
from typing import Annotated

import msgspec
import numpy as np

from tasks.esi.body import decode
from tasks.esi.errors import RefusedError

Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Order(msgspec.Struct, gc=False):
    """The fields of an order that records need; the others are skipped while decoding."""

    order_id: Id
    type_id: Id
    price: Annotated[float, msgspec.Meta(ge=0.01, le=1e15)]  # ISK, two decimals; the game's own limit is 9.2e14
    volume_remain: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # units
    is_buy_order: bool


class PlacedOrder(Order, gc=False):
    """An order with its place, for markets smaller than a region."""

    location_id: Id  # of a station or a player structure
    system_id: Id


class Orders(UserDict[str, np.ndarray]):
    """Columns of orders by name: see `DTYPES` and `PLACE_DTYPES`. In a dict, Prefect would look at each value."""


COARSE_ISK = 2.0**45  # from here on, floats are about a cent apart

DTYPES = {"order_id": "int64", "type_id": "int64", "price": "float64", "volume_remain": "int64", "is_buy_order": "bool"}
PLACE_DTYPES = {"location_id": "int64", "system_id": "int64"}


def decode_orders(body: bytes, what: str, *, has_places: bool = False) -> Orders:
    """Decode and validate a page's JSON in one step; `what` names the page in messages.

    Returns:
        Arrays of `DTYPES`, with `has_places` `PLACE_DTYPES` too: one value per order with volume left, in ESI's order.

    Raises:
        TransientError: the body is not JSON, or an error of ESI's.
        RefusedError: an order lacks a field, or a value is of the wrong type or out of bounds.
    """
    orders: list[Order] = decode(body, list[PlacedOrder] if has_places else list[Order], what)  # type: ignore[arg-type]
    dtypes = DTYPES | PLACE_DTYPES if has_places else DTYPES
    columns = {name: np.fromiter(map(attrgetter(name), orders), dtype, len(orders)) for name, dtype in dtypes.items()}
    price, volume = columns["price"], columns["volume_remain"]
    uneven = price[(np.rint(price * 100) / 100 != price) & (price < COARSE_ISK)]
    if len(uneven):
        raise RefusedError(f"{what}: the price {uneven[0]} has more than two decimals; nothing was stored")
    is_left = slice(None) if volume.all() else volume > 0
    return Orders({name: concatenate([column[is_left]]) for name, column in columns.items()})


def join(pages: list[Orders]) -> Orders:
    """Return the orders of several pages, in order."""
    return Orders({name: concatenate([page[name] for page in pages]) for name in pages[0]})


def concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    """Join arrays of one dtype in mapped memory, which the system gets back: glibc would keep freed memory."""
    count, dtype = sum(map(len, arrays)), arrays[0].dtype
    memory = mmap(-1, max(1, count * dtype.itemsize))
    return np.concatenate(arrays, out=np.frombuffer(memory, dtype, count))
