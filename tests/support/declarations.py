"""Random declarations and items that fit them, and what must become of these, in plain Python."""

import json
from collections import defaultdict
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from typing import Any

import msgspec
from hypothesis import strategies as st

from tasks.declared.declaration import FITS, FieldType, Records, Source, split_pointer
from tasks.table.requests import Item

Row = dict[str, Any]  # an item's fields: int, Decimal, str, bool or None
EXACT = Context(prec=400)
NAMES = ("a", "b", "c", "d")
PATHS = {"a": ["", "/of/a"], "b": ["", "/of/b", "/of/it/b"], "c": ["", "/of/it/c", "/x~1y~0"], "d": ["", "/ü /d"]}
POINTERS = {"": "{}", "/data": '{{"data": {}, "next": null}}', "/data/~1": '{{"data": {{"/": {}}}}}'}


class Case(msgspec.Struct):
    """A declaration, and the items of some pages in JSON."""

    source: Source
    records: Records
    rows: list[Row]
    pages: list[bytes]


class Literal(Decimal):
    """A number that is written in a certain way."""

    text: str

    @classmethod
    def write(cls, text: str) -> "Literal":
        """Return the number that a JSON text is."""
        number = cls(text)
        number.text = text
        return number


SIGNED = [f"{sign}{digits}" for sign in ("", "-") for digits in ("0", "0.0", "0.5", "7", "7.0", "7e0", "70E-1")]
EXTREME = [
    "1e-130",
    "9.9e125",
    "-9.9E+125",
    "123456789012345",
    "1.23456789012345e-9",
    "0.100000000000000000000",
    "1e22",
]
NUMBERS = st.one_of(
    st.sampled_from([*SIGNED, *EXTREME]),
    st.builds("{}e{}".format, st.integers(-(10**15) + 1, 10**15 - 1), st.integers(-20, 20)),
    st.integers(-1000, 1000).map(lambda cents: f"{cents / 100:.2f}"),
).map(Literal.write)
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    "int": st.one_of(
        st.integers(-2, 3), st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**38 - 1, 1 - 10**38])
    ),
    "number": NUMBERS,
    "str": st.sampled_from(["x", "x\0", "Ü", "ü", "true", '"', "é", "é", "😀", "a/b", " "]) | st.text(max_size=3),
    "bool": st.booleans(),
}


@st.composite
def declarations(draw: st.DrawFn) -> Case:
    """Return any declaration of a small grammar, and up to thirty items on up to four pages."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    fields: dict[str, dict[str, Any]] = {
        name: {
            "type": draw(st.sampled_from(list(FITS))),
            "path": draw(st.sampled_from(PATHS[name])),
            "optional": number > 0 and draw(st.booleans()),
        }
        for number, name in enumerate(names)
    }
    pointer = draw(st.sampled_from(list(POINTERS)))
    source = Source.model_validate(
        {
            "url": "https://api.example",
            "pages": {"single": True},
            "items": pointer,
            "fields": {name: draw(st.sampled_from([field, shorten(field)])) for name, field in fields.items()},
        }
    )
    needed = [name for name, field in fields.items() if not field["optional"]]
    keys = draw(st.lists(st.sampled_from(needed), min_size=1, max_size=2, unique=True))
    samples = {
        name: draw(st.lists(VALUES[field["type"]], min_size=1, max_size=5))
        + ([None, None] if field["optional"] else [])
        for name, field in fields.items()
    }
    where = {
        name: draw(st.sampled_from([plain[0], plain[:2]]))
        for name, sample in samples.items()
        if (plain := [to_plain(value) for value in sample if value is not None]) and draw(st.integers(0, 4)) == 0
    }
    values: dict[str, Any] = {"n": "count"}
    for name in names:
        values |= {f"{operation} of {name}": {operation: name} for operation in sorted(FITS[fields[name]["type"]])}
    records = Records.model_validate(
        {
            "key": keys[0] if len(keys) == 1 and draw(st.booleans()) else keys,
            "where": where,
            "once_by": draw(st.sampled_from([None, *needed])),
            "values": draw(st.sampled_from([{}, values, dict(draw(st.lists(st.sampled_from(list(values.items())))))])),
        }
    )
    rows = draw(
        st.lists(st.fixed_dictionaries({name: st.sampled_from(each) for name, each in samples.items()}), max_size=30)
    )
    pages = [[nest(row, fields, is_null=draw(st.booleans())) for row in rows[page::4]] for page in range(4)]
    bodies = [POINTERS[pointer].format(to_json(page)).encode() for page in pages]
    return Case(source, records, [row for page in range(4) for row in rows[page::4]], bodies)


def shorten(field: Row) -> Any:
    """Return a field as its type alone, where that says it all."""
    return field if field["path"] or field["optional"] else field["type"]


def to_plain(value: Any) -> Any:
    """Return a value as a declaration has it."""
    return (int(value) if value == int(value) else float(value)) if isinstance(value, Decimal) else value


def nest(row: Row, fields: dict[str, Row], *, is_null: bool) -> Row:
    """Return an item with its fields where they are declared, and others; missing ones as null, or left out."""
    item: Row = {"other": [{"a": "1234567890.1234567890"}]} if is_null else {}
    for name, value in row.items():
        *parents, last = split_pointer(fields[name]["path"]) or (name,)
        if value is not None or is_null:
            inner = item
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
    return item


def to_json(value: Any) -> str:
    """Return JSON with numbers as they are written."""
    if isinstance(value, list):
        return f"[{', '.join(map(to_json, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {to_json(each)}" for name, each in value.items()) + "}"
    return value.text if isinstance(value, Literal) else json.dumps(value, ensure_ascii=False)


def make_items(rows: list[Row], records: Records) -> list[Item] | None:
    """Return the table's items, sorted by key, None if they must be refused: the reference."""
    if records.once_by:
        rows = list({row[records.once_by]: row for row in reversed(rows)}.values())[::-1]
    groups = defaultdict(list)
    for row in rows:
        if all(is_among(row[name], allowed) for name, allowed in records.where.items()):
            groups[tuple(to_text(row[name]) for name in records.key_fields)].append(row)
    if any(not text or text[0] == "#" or len(text.encode()) > 1024 for key in groups for text in key):
        return None
    if not records.values and any(len(group) > 1 for group in groups.values()):
        return None
    items = []
    for key, group in sorted(groups.items()):
        found = {name: compute(group, what) for name, what in records.values.items()}
        found = found or {name: value for name, value in group[0].items() if name not in records.key_fields}
        if any(isinstance(value, Decimal | int) and not is_storable(value) for value in found.values()):
            return None
        attributes = {name: to_attribute(value) for name, value in found.items() if value is not None}
        items.append(dict(zip(("pk", "sk"), [{"S": text} for text in key], strict=False)) | attributes)
    return items


def compute(group: list[Row], what: Any) -> Any:
    """Return a record's value, None if there is none."""
    if what == "count":
        return len(group)
    [(operation, name)] = what.items()
    present = [row[name] for row in group if row[name] is not None]
    functions: dict[str, Callable[[list[Any]], Any]] = {"min": min, "max": max, "sum": sum}
    with localcontext(EXACT):
        return functions[operation](present) if present else None


def is_among(value: Any, allowed: Any) -> bool:
    """Return whether a value is the one allowed, or one of them."""
    each = allowed if isinstance(allowed, list) else [allowed]
    return value in [Decimal(repr(one)) if isinstance(value, Decimal) else one for one in each]


def is_storable(number: Decimal | int) -> bool:
    """Return whether DynamoDB can store a number."""
    exact = EXACT.normalize(Decimal(number))
    return not exact or (len(exact.as_tuple().digits) <= 38 and -130 <= exact.adjusted() <= 125)


def to_text(value: Any) -> str:
    """Return a value as a key: a number in plain digits, without zeros that say nothing."""
    if isinstance(value, Decimal):
        return f"{EXACT.normalize(value):f}" if value else "0"
    return json.dumps(value) if isinstance(value, bool) else str(value)


def to_attribute(value: Any) -> Item:
    """Return a value in DynamoDB's notation."""
    kind = "S" if isinstance(value, str) else "BOOL" if isinstance(value, bool) else "N"
    return {kind: value if kind == "BOOL" else to_text(value)}
