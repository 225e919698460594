"""Aggregates items to records, by a declaration."""

import decimal
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from tasks.declared.declaration import ItemField, Records, What
from tasks.declared.items import NOTHING_STORED, Columns, join
from tasks.esi.errors import RefusedError
from tasks.orders.records import Book, Value

MOST_KEY_BYTES = 1024  # DynamoDB's limit for a sort key; a partition key may have 2048
MOST_TEXT_BYTES = 390_000  # DynamoDB's limit for an item is 400 KB, with keys, names and numbers
MOST_DIGITS = 38  # of a number in DynamoDB
EXPONENTS = range(-130, 126)  # of its first digit
EXACT = decimal.Context(prec=400)  # for the sum of any numbers that DynamoDB can store
EXTREMES: dict[str, Callable[[list[Any]], Value]] = {"min": min, "max": max}

Key = tuple[Value, ...]  # of an item: the values of the fields in `records.key`


class ItemRecord(msgspec.Struct, frozen=True):
    """A record by declaration."""

    name: str  # the key: see `name_key`
    attributes: dict[str, Value]


def make_book(chunks: list[Columns], fields: Mapping[str, ItemField], records: Records) -> Book:
    """Return the records of a snapshot's items; the chunks are in the order of the pages, and are emptied.

    Raises:
        RefusedError: two items have one key and there are no `values`; or a key, a sum or a text does not fit DynamoDB.
    """
    columns = join(chunks)
    rows: Sequence[int] = range(len(columns[records.key_fields[0]]))
    if records.once_by is not None:
        first: dict[Value, int] = {}
        for row, value in enumerate(columns[records.once_by]):
            first.setdefault(value, row)
        rows = list(first.values())
    count = len(rows)
    for name, allowed in records.where.items():
        wanted = set(allowed if isinstance(allowed, list) else [allowed])
        if fields[name].type == "number":
            wanted = set(map(float, wanted))  # 95e20 is not the integer that it stands for
        column = columns[name]
        rows = [row for row in rows if column[row] in wanted]
    groups: defaultdict[Key, list[int]] = defaultdict(list)
    keys = zip(*(map(columns[name].__getitem__, rows) for name in records.key_fields), strict=True)
    for row, key in zip(rows, keys, strict=True):
        groups[key].append(row)
    with decimal.localcontext(EXACT):
        return Book([make_record(key, group, columns, records) for key, group in groups.items()], count)


def make_record(key: Key, rows: list[int], columns: Columns, records: Records) -> ItemRecord:
    """Return the record of the items with a key: their values, or the other fields of the only one."""
    attributes = {value: compute(value, what, key, rows, columns) for value, what in records.values.items()}
    if not attributes:
        if len(rows) > 1:
            same = ", ".join(f"{name} {value!r}" for name, value in zip(records.key_fields, key, strict=True))
            raise RefusedError(
                f"two items have the same key, {same}: give records.once_by if an item may appear twice, or "
                f"records.values to make one record of many; {NOTHING_STORED}"
            )
        attributes = {name: column[rows[0]] for name, column in columns.items() if name not in records.key_fields}
    record = ItemRecord(name_key(key), attributes)
    text_bytes = sum(len(value.encode()) for value in attributes.values() if isinstance(value, str))
    if text_bytes > MOST_TEXT_BYTES:
        raise RefusedError(
            f"the record {record.name} has {text_bytes:,} bytes of text, expected at most {MOST_TEXT_BYTES:,}: "
            f"leave a field out; {NOTHING_STORED}"
        )
    return record


def compute(value: str, what: What, key: Key, rows: list[int], columns: Columns) -> Value:
    """Return a value of the items with a key; None if none of them has its field."""
    if what == "count":
        return len(rows)
    [(operation, field)] = what.items()
    column = columns[field]
    present = [found for row in rows if (found := column[row]) is not None]
    if not present:
        return None
    if operation in EXTREMES:
        return EXTREMES[operation](present)
    # Floats are added as the shortest decimals that they stand for.
    total = sum(present) if isinstance(present[0], int) else sum(Decimal(repr(each)) for each in present)
    exact = Decimal(total).normalize()
    if exact and (len(exact.as_tuple().digits) > MOST_DIGITS or exact.adjusted() not in EXPONENTS):
        raise RefusedError(
            f"the sum {value} of {', '.join(map(str, key))} has more than {MOST_DIGITS} digits, or is not within "
            f"1e-130 and 9.9e125; {NOTHING_STORED}"
        )
    return total


def name_key(key: Key) -> str:
    """Return a record's key: the text of one field, or of two a JSON array; raise a RefusedError if invalid."""
    texts = list(map(to_text, key))
    for text in texts:
        if not text or text.startswith("#") or len(text.encode()) > MOST_KEY_BYTES:
            raise RefusedError(
                f"a key is {text[:80]!r}, expected 1 to {MOST_KEY_BYTES} bytes, the first not #; {NOTHING_STORED}"
            )
    return texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)


def to_text(value: Value) -> str:
    """Return a key's value as text: a number as its shortest decimal, true and false as in JSON."""
    if isinstance(value, bool):
        return json.dumps(value)
    return format(Decimal(repr(value)).normalize(), "f") if isinstance(value, float) else str(value)
