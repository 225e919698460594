"""The columns of orders: what is decoded from a page, and what is refused."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.esi.errors import RefusedError, TransientError
from tasks.orders.columns import DTYPES, Order, Orders, decode_orders

# Two orders that ESI sent on 2023-08-04.
RECORDED = b"""[
{"duration":90,"is_buy_order":false,"issued":"2023-07-20T23:23:12Z","location_id":60013867,"min_volume":1,"order_id":6556680193,"price":1950000,"range":"region","system_id":30000019,"type_id":656,"volume_remain":1,"volume_total":1},
{"duration":90,"is_buy_order":false,"issued":"2023-06-01T22:14:15Z","location_id":60012541,"min_volume":1,"order_id":6522865723,"price":1300000,"range":"region","system_id":30000023,"type_id":2869,"volume_remain":16,"volume_total":100}
]"""


GOOD = {"order_id": 1, "type_id": 34, "price": 5.7, "volume_remain": 10, "is_buy_order": False}


orders = st.builds(
    Order,
    order_id=st.integers(1, 2**63 - 1),
    type_id=st.integers(1, 2**63 - 1),
    price=st.integers(1, 35 * 10**14).map(lambda cents: cents / 100),
    volume_remain=st.integers(1, 2**63 - 1),
    is_buy_order=st.booleans(),
)


def dtypes(columns: Orders) -> dict[str, str]:
    """Return the columns' dtypes by name, in their order."""
    return {name: str(column.dtype) for name, column in columns.items()}


def test_recorded_orders_are_decoded() -> None:
    """Real orders are decoded into the five columns."""
    columns = decode_orders(RECORDED, "page 1")
    assert {name: column.tolist() for name, column in columns.items()} == {
        "order_id": [6556680193, 6522865723],
        "type_id": [656, 2869],
        "price": [1950000.0, 1300000.0],
        "volume_remain": [1, 16],
        "is_buy_order": [False, False],
    }
    assert dtypes(columns) == DTYPES


@given(st.lists(orders, max_size=20))
def test_what_is_encoded_comes_back(rows: list[Order]) -> None:
    """Any orders that ESI can send are decoded exactly, and in order."""
    columns = decode_orders(msgspec.json.encode(rows), "page 1")
    assert dtypes(columns) == DTYPES
    assert [Order(*row) for row in zip(*(column.tolist() for column in columns.values()), strict=True)] == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"price": None}, r"missing required field `price` - at `\$\[1\]`", id="no price"),
        pytest.param({"type_id": None}, r"missing required field `type_id`", id="no type"),
        pytest.param({"price": "5.7"}, r"Expected `float`, got `str` - at `\$\[1\].price`", id="price as text"),
        pytest.param({"price": -1}, r"`float` >= 0.01 - at `\$\[1\].price`", id="negative price"),
        pytest.param({"price": 1e300}, r"`float` <= .* - at `\$\[1\].price`", id="absurd price"),
        pytest.param({"price": 5.123}, r"the price 5.123 has more than two decimals", id="price with three decimals"),
        pytest.param({"volume_remain": -1}, r"`int` >= 0 - at `\$\[1\].volume_remain`", id="less than nothing left"),
        pytest.param({"volume_remain": 2**63}, r"`int` <= 9223372036854775807", id="volume past 64 bits"),
        pytest.param({"order_id": 1.5}, r"Expected `int`, got `float`", id="order id with decimals"),
        pytest.param({"is_buy_order": 1}, r"Expected `bool`, got `int`", id="side as number"),
    ],
)
def test_wrong_order_is_refused(change: dict[str, Any], message: str) -> None:
    """An order that breaks ESI's contract is refused for good, with its position, what was expected and what came."""
    wrong = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(RefusedError, match=f"page 3 of region 7: .*{message}.*nothing was stored"):
        decode_orders(msgspec.json.encode([GOOD, wrong]), "page 3 of region 7")


def test_order_with_nothing_left_is_left_out() -> None:
    """An order with nothing left is left out: it must not set a price."""
    columns = decode_orders(msgspec.json.encode([GOOD, GOOD | {"volume_remain": 0}]), "page 3 of region 7")
    assert {name: column.tolist() for name, column in columns.items()} == {name: [GOOD[name]] for name in DTYPES}


@pytest.mark.parametrize("body", [b'{"orders":[]}', b"null", b"[1]", b'"x"'])
def test_wrong_shape_is_refused(body: bytes) -> None:
    """JSON that is not a list of orders is refused for good."""
    with pytest.raises(RefusedError, match="page 1: Expected `"):
        decode_orders(body, "page 1")


@pytest.mark.parametrize("body", [b"", b"<html>", b'[{"order_id":1', b'[{"price":NaN}]', b"\xff\xfe"])
def test_undecodable_body_may_pass(body: bytes) -> None:
    """A body that is not JSON is a transient error: the next one may be whole."""
    with pytest.raises(TransientError, match="page 1: the body is not JSON"):
        decode_orders(body, "page 1")


def test_error_as_a_200_may_pass() -> None:
    """A 200 with ESI's error in its body is transient, and the message quotes ESI."""
    with pytest.raises(TransientError, match='page 1: ESI answered 200, but with the error "Timeout contacting x"'):
        decode_orders(b'{"error":"Timeout contacting x","timeout":10}', "page 1")


def test_empty_page_gives_no_orders() -> None:
    """A page without orders has all columns, and no rows."""
    columns = decode_orders(b"[]", "page 1")
    assert dtypes(columns) == DTYPES
    assert not any(map(len, columns.values()))
