"""A declared source: from any pages that fit it to the table's items, against plain Python; and what it refuses."""

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.declared.declaration import Records, Source
from tasks.declared.source import DeclaredSource
from tasks.esi.errors import RefusedError, TransientError
from tasks.table.records import to_item
from tasks.table.requests import Item, ItemKeys
from tests.support.declarations import Case, declarations, make_items


def convert(source: Source, records: Records, pages: list[bytes], at_once: int = 1) -> tuple[list[Item], int]:
    """Return the table's items of pages, fetched in chunks of so many, sorted by key; and how many items there were."""
    declared = DeclaredSource(source, records)
    columns = [declared.decode(body, f"page {number}") for number, body in enumerate(pages, 1)]
    chunks = [declared.join(columns[start : start + at_once]) for start in range(0, len(columns), at_once)]
    (book,) = declared.make_books(chunks, [0])
    keys = ItemKeys(is_pair=len(records.key_fields) == 2)
    items = [to_item(record, keys) for record in book.records]
    assert all(keys.read(item) == record.name for item, record in zip(items, book.records, strict=True))
    return sorted(items, key=lambda item: [item[name]["S"] for name in ("pk", "sk") if name in item]), book.orders


@given(case=declarations(), at_once=st.integers(1, 4))
def test_items_are_what_plain_python_gives(case: Case, at_once: int) -> None:
    """Any declaration makes exactly these items of any pages, or refuses what no table could hold."""
    expected = make_items(case.rows, case.records)
    if expected is None:
        with pytest.raises(RefusedError, match="nothing was stored"):
            convert(case.source, case.records, case.pages, at_once)
    else:
        items, count = convert(case.source, case.records, case.pages, at_once)
        assert items == expected
        once = case.records.once_by
        assert count == (len({row[once] for row in case.rows}) if once else len(case.rows))


def declare(fields: dict[str, Any], items: str = "", **records: Any) -> DeclaredSource:
    """Return a source with `id` as key if no other is given."""
    source = {"url": "https://api.example/all", "pages": {"single": True}, "items": items, "fields": fields}
    return DeclaredSource(Source.model_validate(source), Records.model_validate({"key": "id"} | records))


def convert_body(body: str, fields: dict[str, Any], **records: Any) -> list[Item]:
    """Return the items of one page, whose items have the number `id`, and other fields."""
    declared = declare({"id": "int"} | fields, **records)
    return convert(declared.declared, declared.records, [body.encode()])[0]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("number", "1234567890123456", "expected at most 15 digits"),
        ("number", "0.1234567890123456", "expected at most 15 digits"),
        ("number", "12345678901234.56e-3", "expected at most 15 digits"),
        ("number", "-9007199254740993", "expected at most 15 digits"),
        ("number", "1e126", "expected 1e-130 to 9.9e125"),
        ("number", "9e-131", "expected 1e-130 to 9.9e125"),
        ("number", "1e-400", "expected 1e-130 to 9.9e125"),
        ("number", "1e400", "out of range|expected 1e-130 to 9.9e125"),
        ("number", '"5.7"', "Expected `float`, got `str`|expected a number"),
        ("number", "true", "Expected `float`, got `bool`|expected a number"),
        ("number", "null", "Expected `float`, got `null`|expected a number"),
        ("int", "1.0", "Expected `int`, got `float`"),
        ("int", "1e3", "Expected `int`, got `float`"),
        ("int", str(10**38), "expected at most 38 digits"),
        ("int", str(-(10**38)), "expected at most 38 digits"),
        ("int", "null", "Expected `int`, got `null`"),
        ("str", "5", "Expected `str`, got `int`"),
        ("bool", "1", "Expected `bool`, got `int`"),
    ],
)
@pytest.mark.parametrize("other", ["", "1234567890123456"])
def test_value_that_does_not_fit_is_refused(kind: str, value: str, message: str, other: str) -> None:
    """A value that a field cannot have, or a table cannot hold, is refused with its page, whatever else is there."""
    body = f'[{{"id": 1, "at": {value}, "other": "{other}"}}]'
    with pytest.raises(RefusedError, match=rf"^page 1: .*(at\b.*)?({message})") as refused:
        convert_body(body, {"at": kind})
    assert "at" in str(refused.value).removeprefix("page 1")


@pytest.mark.parametrize(
    ("body", "items", "message"),
    [
        ('{"id": 1}', "", "Expected `array`, got `object`"),
        ('{"data": {"id": 1}}', "/data", r"Expected `array`, got `object` - at `\$.data`"),
        ('{"rows": []}', "/data", "Object missing required field `data`"),
        ("[]", "/data", "Expected `object`, got `array`"),
        ("null", "", "Expected `array`, got `null`"),
        ("[1]", "", "Expected `object`, got `int`"),
        ("[{}]", "", r"Object missing required field `id` - at `\$\[0\]`"),
    ],
)
def test_wrong_shape_is_refused(body: str, items: str, message: str) -> None:
    """A page whose items are not an array where they should be is refused for good."""
    with pytest.raises(RefusedError, match=rf"page 3: {message}.*nothing was stored"):
        declare({"id": "int"}, items).decode(body.encode(), "page 3")


@pytest.mark.parametrize("body", ["", "<html>", '[{"id": 1', '[{"id": NaN}]', '{"error": "try later"}'])
def test_what_is_no_page_may_pass(body: str) -> None:
    """A body that is not JSON, or an error, is transient."""
    with pytest.raises(TransientError, match=r"page 1: (the body is not JSON|api.example answered 200, but with)"):
        declare({"id": "int"}).decode(body.encode(), "page 1")


def add_up(kind: str, *values: str) -> Any:
    """Return the sum of a field in some items of one record, as a table has it."""
    body = ", ".join(f'{{"id": 1, "at": {value}}}' for value in values)
    (item,) = convert_body(f"[{body}]", {"at": kind}, values={"total": {"sum": "at"}})
    return item["total"]["N"]


@pytest.mark.parametrize(
    ("values", "total"),
    [
        (["-9223372036854775808"] * 2, "-18446744073709551616"),
        (["4611686018427387904", "4611686018427387904"], "9223372036854775808"),
        (["99999999999999999999999999999999999999", "-1"], "99999999999999999999999999999999999998"),
    ],
)
def test_sum_of_integers_is_exact(values: list[str], total: str) -> None:
    """A sum beyond 64 bits is exact, on either side of 0."""
    assert add_up("int", *values) == total


def test_sum_of_numbers_is_decimal() -> None:
    """A sum has all of its digits, up to the 38 that DynamoDB keeps, and no others."""
    assert add_up("number", "0.1", "0.2") == "0.3"
    assert add_up("number", "1e20", "1e-15") == "100000000000000000000.000000000000001"
    assert add_up("number", "0.1", "-0.1") == "0"
    assert add_up("number", "-0.0") == "0"


@pytest.mark.parametrize("values", [("1e30", "1e-9"), ("9.9e125", "9.9e125"), ("1.1e-130", "-1e-130")])
def test_sum_that_a_table_cannot_hold_is_refused(values: tuple[str, ...]) -> None:
    """A sum of more than 38 digits, or out of DynamoDB's range, is refused before anything is written."""
    with pytest.raises(RefusedError, match=r"the sum total of 1 has more than 38 digits, or is not within"):
        add_up("number", *values)


@pytest.mark.parametrize("key", ["", "#snapshot", "x" * 1025])
def test_key_that_is_no_records_is_refused(key: str) -> None:
    """A key that is empty, too long, or would be taken for `#snapshot` is refused."""
    body = f'[{{"id": 1, "name": "{key}"}}]'
    for keys in ("name", ["id", "name"]):
        with pytest.raises(RefusedError, match="a key is .*, expected 1 to 1024 bytes, the first not #"):
            convert_body(body, {"name": "str"}, key=keys)


def test_url_is_requested_as_it_is_declared() -> None:
    """A path keeps its escapes and its last slash, and a query what it has twice."""
    url = "https://gitlab.example/api/v4/projects/group%2Fproject/issues/?labels=a&labels=b&state=all"
    source = {"url": url, "pages": {"count_header": "X-Total-Pages"}, "fields": {"id": "int"}}
    declared = DeclaredSource(Source.model_validate(source), Records(key="id"))
    endpoint = declared.endpoint.page(2)
    with httpx.Client(base_url=declared.declared.base_url) as client:
        assert str(client.build_request("GET", endpoint.path, params=endpoint.params).url) == f"{url}&page=2"
