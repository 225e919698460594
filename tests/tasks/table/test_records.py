"""Records: as items, compared with the table's, and as write requests."""

from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.orders.aggregation import list_records
from tasks.orders.records import Record
from tasks.table.records import Changes, compare, number, to_item, to_request
from tasks.table.requests import ONE_MARKET, Item
from tests.support.tables import items, rows

keys = st.one_of(st.integers(1, 30).map(str), st.sampled_from(["notes", "#other", "", "٣", "-1", "1e3"]))


tables = st.dictionaries(keys, st.integers(1, 3))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.7, "5.7"),
        (100.0, "100"),
        (0.01, "0.01"),
        (1e13, "10000000000000"),
        (1e16, "10000000000000000"),
        (1e-7, "0.0000001"),
        (1 / 3, "0.3333333333333333"),
        (0, "0"),
        (2**70, "1180591620717411303424"),
    ],
)
def test_number_is_the_shortest_decimal(value: float, text: str) -> None:
    """A number is written in plain digits, as few as are exact."""
    assert number(value) == {"N": text}


@given(st.floats(0.01, 1e15))
def test_number_is_exact(value: float) -> None:
    """A float is read back exactly from its text, which has no exponent and no trailing zeros."""
    text = number(value)["N"]
    assert float(text) == value
    assert Decimal(text) == Decimal(repr(value))
    assert "e" not in text.lower()
    assert not (text.endswith("0") and "." in text)


def test_compact_item_is_three_attributes() -> None:
    """A record without details has `pk`, `price` and `volume`, and nothing else."""
    records = pd.DataFrame({"price": [5.7], "volume": pd.Series([2**64], [34], "object")}, index=[34])
    [row] = list_records(records)
    assert to_item(row, ONE_MARKET) == {
        "pk": {"S": "34"},
        "price": {"N": "5.7"},
        "volume": {"N": "18446744073709551616"},
    }


def test_details_are_maps_of_numbers() -> None:
    """Details become maps; a side without figures becomes an empty map."""
    records = pd.DataFrame(
        {"price": [1.0], "volume": [1], "buy": [{}], "sell": [{"max": 2.5, "volume": 3}]},
        index=[34],
    )
    [row] = list_records(records)
    item = to_item(row, ONE_MARKET)
    assert (item["buy"], item["sell"]) == ({"M": {}}, {"M": {"max": {"N": "2.5"}, "volume": {"N": "3"}}})


def test_numbers_are_compared_as_numbers() -> None:
    """Numbers are compared by value, in whatever form the store returns them."""
    row = Record(34, 5.7, 3, {}, {"volume": 100})
    present: dict[str, Item] = {
        "34": {
            "pk": {"S": "34"},
            "price": {"N": "5.70"},
            "volume": {"N": "3.0"},
            "buy": {"M": {}},
            "sell": {"M": {"volume": {"N": "1E+2"}}},
        }
    }
    assert compare([row], present) == Changes([], {}, [], 1, 0)
    present["34"]["sell"]["M"]["volume"]["N"] = "101"
    assert compare([row], present) == Changes([row], present, [], 0, 0)


@given(wanted=st.dictionaries(st.integers(1, 30), st.integers(1, 3)), present=tables)
def test_changes_turn_any_table_into_the_records(wanted: dict[int, int], present: dict[str, int]) -> None:
    """After the changes, any table holds the new records, and its foreign items as they were."""
    changes = compare(rows(wanted), items(present))
    after = dict(items(present))
    after.update({item["pk"]["S"]: item for item in (to_item(put, ONE_MARKET) for put in changes.puts)})
    for pk in changes.deletes:
        del after[pk]
    foreign = {pk: item for pk, item in items(present).items() if not ONE_MARKET.is_record(pk)}
    assert after == {str(row[0]): to_item(row, ONE_MARKET) for row in rows(wanted)} | foreign
    assert changes.foreign == len(foreign)


@given(wanted=st.dictionaries(st.integers(1, 30), st.integers(1, 3)), present=tables)
def test_changes_are_no_more_than_needed(wanted: dict[int, int], present: dict[str, int]) -> None:
    """No item is written that is there already, and no wanted item is deleted."""
    changes = compare(rows(wanted), items(present))
    assert all(items(present).get(str(row[0])) != to_item(row, ONE_MARKET) for row in changes.puts)
    assert not set(changes.deletes) & {str(row[0]) for row in rows(wanted)}
    assert changes.unchanged + len(changes.puts) == len(wanted)


def test_rows_are_put_and_keys_deleted() -> None:
    """A write becomes DynamoDB's PutRequest of a record, or DeleteRequest of a key."""
    assert to_request(Record(34, 5.7, 3), ONE_MARKET) == {
        "PutRequest": {"Item": {"pk": {"S": "34"}, "price": {"N": "5.7"}, "volume": {"N": "3"}}}
    }
    assert to_request("34", ONE_MARKET) == {"DeleteRequest": {"Key": {"pk": {"S": "34"}}}}


def test_attributes_of_others_are_not_compared() -> None:
    """Attributes that a global table adds are ignored; an added or missing detail is a difference."""
    item: Item = {"pk": {"S": "34"}, "price": {"N": "5.7"}, "volume": {"N": "3"}}
    others: Item = {"aws:rep:updateregion": {"S": "eu-west-1"}, "aws:rep:deleting": {"BOOL": False}, "note": {"S": "x"}}
    compact = Record(34, 5.7, 3)
    full = Record(34, 5.7, 3, {}, {"volume": 3})
    assert compare([compact], {"34": item | others}).unchanged == 1
    assert compare([full], {"34": to_item(full, ONE_MARKET) | others}).unchanged == 1
    assert compare([full], {"34": item | others}).puts == [full]
    assert compare([compact], {"34": to_item(full, ONE_MARKET) | others}).puts == [compact]
    assert compare([compact], {"34": item | {"sell": {"M": {}}}}).puts == [compact]
