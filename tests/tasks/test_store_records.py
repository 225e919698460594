"""What is written, and what is not."""

from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.esi.markets import find_market
from tasks.store_records import split_writes
from tasks.table.guards import ShrinkError, refuse_shrunk
from tasks.table.keys import ONE_MARKET
from tasks.table.records import Changes, Record, compare, is_type_id, list_records, number, to_item, to_request
from tasks.table.requests import Item

keys = st.one_of(st.integers(1, 30).map(str), st.sampled_from(["notes", "#other", "", "٣", "-1", "1e3"]))
tables = st.dictionaries(keys, st.integers(1, 3))


def items(table: dict[str, int]) -> dict[str, Item]:
    """Return a small table as DynamoDB holds it."""
    return {pk: {"pk": {"S": pk}, "price": {"N": str(price)}, "volume": {"N": "1"}} for pk, price in table.items()}


def rows(records: dict[int, int]) -> list[Record]:
    """Return records as `list_records` does."""
    return [Record(type_id, float(price), 1) for type_id, price in records.items()]


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
    """A number is written in plain digits, as short as it can be and still be it."""
    assert number(value) == {"N": text}


@given(st.floats(0.01, 1e15))
def test_number_is_exact(value: float) -> None:
    """A float comes back from its text, which has no exponent and no zeros that say nothing."""
    text = number(value)["N"]
    assert float(text) == value
    assert Decimal(text) == Decimal(repr(value))
    assert "e" not in text.lower()
    assert not (text.endswith("0") and "." in text)


def test_compact_item_is_three_attributes() -> None:
    """A record without details is `pk`, `price` and `volume`, and nothing else."""
    records = pd.DataFrame({"price": [5.7], "volume": pd.Series([2**64], [34], "object")}, index=[34])
    [row] = list_records(records)
    assert to_item(row, ONE_MARKET) == {
        "pk": {"S": "34"},
        "price": {"N": "5.7"},
        "volume": {"N": "18446744073709551616"},
    }


def test_details_are_maps_of_numbers() -> None:
    """Details become maps; a side without figures is an empty one."""
    records = pd.DataFrame(
        {"price": [1.0], "volume": [1], "buy": [{}], "sell": [{"max": 2.5, "volume": 3}]},
        index=[34],
    )
    [row] = list_records(records)
    item = to_item(row, ONE_MARKET)
    assert (item["buy"], item["sell"]) == ({"M": {}}, {"M": {"max": {"N": "2.5"}, "volume": {"N": "3"}}})


def test_numbers_are_compared_as_numbers() -> None:
    """A store may write a number as it likes: what is equal is not written again, what is not is."""
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
    """Whatever the table held, after the changes it holds the records, and what is no type's as it was."""
    changes = compare(rows(wanted), items(present))
    after = dict(items(present))
    after.update({item["pk"]["S"]: item for item in (to_item(put, ONE_MARKET) for put in changes.puts)})
    for pk in changes.deletes:
        del after[pk]
    foreign = {pk: item for pk, item in items(present).items() if not is_type_id(pk)}
    assert after == {str(row[0]): to_item(row, ONE_MARKET) for row in rows(wanted)} | foreign
    assert changes.foreign == len(foreign)


@given(wanted=st.dictionaries(st.integers(1, 30), st.integers(1, 3)), present=tables)
def test_changes_are_no_more_than_needed(wanted: dict[int, int], present: dict[str, int]) -> None:
    """No item is written that is there already, and none deleted that is wanted."""
    changes = compare(rows(wanted), items(present))
    assert all(items(present).get(str(row[0])) != to_item(row, ONE_MARKET) for row in changes.puts)
    assert not set(changes.deletes) & {str(row[0]) for row in rows(wanted)}
    assert changes.unchanged + len(changes.puts) == len(wanted)


@given(puts=st.integers(0, 9000), deletes=st.integers(0, 40))
def test_every_request_is_in_one_batch(puts: int, deletes: int) -> None:
    """The parts have each request once, in order, at most 25 a batch and 5,000 a part, and are numbered through."""
    changes = Changes([Record(n, 1.0, 1) for n in range(puts)], {}, [f"d{n}" for n in range(deletes)], 0, 0)
    parts = split_writes(changes)
    batches = [batch for part in parts for batch in part.left]
    bounds = [tuple(map(int, part.name.split("-"))) for part in parts]
    assert all(0 < len(batch) <= 25 for batch in batches)
    assert [write for batch in batches for write in batch] == [*changes.puts, *changes.deletes]
    assert [first for first, _last in bounds] == [1, *(last + 1 for _first, last in bounds)][: len(parts)]
    assert all(last - first < 5000 for first, last in bounds)
    assert [last - first + 1 for first, last in bounds] == [sum(map(len, part.left)) for part in parts]
    assert len(parts) <= 4


def test_rows_are_put_and_keys_deleted() -> None:
    """A write is a record to put or a key to delete, in DynamoDB's own words."""
    assert to_request(Record(34, 5.7, 3), ONE_MARKET) == {
        "PutRequest": {"Item": {"pk": {"S": "34"}, "price": {"N": "5.7"}, "volume": {"N": "3"}}}
    }
    assert to_request("34", ONE_MARKET) == {"DeleteRequest": {"Key": {"pk": {"S": "34"}}}}


def stored(left: int, gone: int, new: int = 0) -> Changes:
    """Return the changes of a table of which so many records are left, every second with another price."""
    present = items({str(n): 1 for n in range(1, left + gone + 1)})
    return compare(rows({n: n % 2 + 1 for n in [*range(1, left + 1), *range(10**6, 10**6 + new)]}), present)


@pytest.mark.parametrize(
    ("left", "gone", "new"),
    [(21, 21, 0), (20, 20, 0), (0, 20, 0), (1, 20, 0), (150, 150, 0), (0, 1, 0), (1, 2, 0), (0, 0, 0), (0, 0, 900)],
)
def test_half_of_the_records_or_a_handful_may_go(left: int, gone: int, new: int) -> None:
    """A snapshot is stored that leaves half of the table's records or more, or takes twenty or fewer."""
    refuse_shrunk(stored(left, gone, new), find_market(10000002))


@pytest.mark.parametrize(("left", "gone", "new"), [(20, 21, 0), (0, 21, 0), (149, 151, 0), (0, 300, 300), (9, 21, 40)])
def test_under_half_of_the_records_is_refused(left: int, gone: int, new: int) -> None:
    """One that leaves under half and takes more is refused, however many records of other types come instead."""
    message = (
        f"region 10000002 has {left + new} records, the table {left + gone}: under half of them, {left}, would be "
        "left, so nothing was written; if the market is right, run with force"
    )
    with pytest.raises(ShrinkError, match=f"^{message}$"):
        refuse_shrunk(stored(left, gone, new), find_market(10000002))


def test_attributes_of_others_are_not_compared() -> None:
    """What a global table adds to each item is no difference; a detail of ours that is there or missing is one."""
    item: Item = {"pk": {"S": "34"}, "price": {"N": "5.7"}, "volume": {"N": "3"}}
    others: Item = {"aws:rep:updateregion": {"S": "eu-west-1"}, "aws:rep:deleting": {"BOOL": False}, "note": {"S": "x"}}
    compact = Record(34, 5.7, 3)
    full = Record(34, 5.7, 3, {}, {"volume": 3})
    assert compare([compact], {"34": item | others}).unchanged == 1
    assert compare([full], {"34": to_item(full, ONE_MARKET) | others}).unchanged == 1
    assert compare([full], {"34": item | others}).puts == [full]
    assert compare([compact], {"34": to_item(full, ONE_MARKET) | others}).puts == [compact]
    assert compare([compact], {"34": item | {"sell": {"M": {}}}}).puts == [compact]
