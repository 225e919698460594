"""Aggregates items to records, by a declaration."""

import decimal
import json
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from tasks.declared.declaration import Operation, Records
from tasks.declared.items import NOTHING_STORED, join
from tasks.declared.items import Columns as Page
from tasks.esi.errors import RefusedError
from tasks.orders.exact import INT64_SAFE
from tasks.orders.records import Book, Value

MOST_KEY_BYTES = 1024  # DynamoDB's limit for a sort key; a partition key may have 2048
MOST_TEXT_BYTES = 390_000  # DynamoDB's limit for an item is 400 KB, with keys, names and numbers
MOST_DIGITS = 38  # of a number in DynamoDB
EXPONENTS = range(-130, 126)  # of its first digit
EXACT = decimal.Context(prec=400)  # the sum of any numbers that DynamoDB can store

Columns = dict[str, list[Value]]  # of records, by attribute


class ItemRecord(msgspec.Struct, frozen=True):
    """A record by declaration."""

    name: str  # the key: see `name_key`
    attributes: dict[str, Value]


def make_book(chunks: list[Page], records: Records) -> Book:
    """Return the records of a snapshot's items.

    The chunks are in the order of the pages; their columns are removed, to save memory.

    Raises:
        RefusedError: two items have one key and there are no `values`; or a key, a sum or a text does not fit DynamoDB.
    """
    columns = {name: join([chunk.pop(name) for chunk in chunks]) for name in list(chunks[0])}
    items = pd.DataFrame({name: pd.Series(column, dtype=column.dtype, copy=False) for name, column in columns.items()})
    del columns
    if records.once_by is not None:
        repeated = items.duplicated(records.once_by)
        items = items[~repeated] if repeated.any() else items
    count = len(items)
    for name, allowed in records.where.items():
        wanted = set(allowed if isinstance(allowed, list) else [allowed])
        if items[name].dtype == "float64":
            wanted = set(map(float, wanted))  # 95e20 is not the integer that it stands for
        # Not `isin`, which rounds long integers to float64.
        items = items[np.fromiter((value in wanted for value in items[name].tolist()), "bool", len(items))]
    keys, values = aggregate(items, records) if records.values else list_items(items, records)  # noqa: PD011 (no frame)
    names = name_keys(keys)
    rows = zip(*values.values(), strict=True) if values else [()] * len(names)
    made = [ItemRecord(name, dict(zip(values, row, strict=True))) for name, row in zip(names, rows, strict=True)]
    for record in made:
        text_bytes = sum(len(value.encode()) for value in record.attributes.values() if isinstance(value, str))
        if text_bytes > MOST_TEXT_BYTES:
            raise RefusedError(
                f"the record {record.name} has {text_bytes:,} bytes of text, expected at most {MOST_TEXT_BYTES:,}: "
                f"leave a field out; {NOTHING_STORED}"
            )
    return Book(made, count)


def list_items(items: pd.DataFrame, records: Records) -> tuple[list[list[Value]], Columns]:
    """Return the items' keys by field, and their other fields as columns; raise a RefusedError if two have one key."""
    repeated = items[items.duplicated(records.key_fields)]
    if len(repeated):
        key = ", ".join(f"{name} {to_values(repeated[name])[0]!r}" for name in records.key_fields)
        raise RefusedError(
            f"two items have the same key, {key}: give records.once_by if an item may appear twice, or records.values "
            f"to make one record of many; {NOTHING_STORED}"
        )
    others = [str(name) for name in items if name not in records.key_fields]
    return [to_values(items[name]) for name in records.key_fields], {name: to_values(items[name]) for name in others}


def aggregate(items: pd.DataFrame, records: Records) -> tuple[list[list[Value]], Columns]:
    """Return the keys of groups of items, a list for each field, and the values of each group as columns."""
    groups = items.groupby(records.key_fields, sort=True)
    sizes = groups.size()
    keys = sizes.index.to_frame(index=False)
    columns: Columns = {}
    for value, what in records.values.items():  # noqa: PD011 (no frame)
        if what == "count":
            columns[value] = to_values(sizes)
        else:
            [(operation, name)] = what.items()
            columns[value] = compute(operation, items[name], groups[name], value)
    return [to_values(keys[name]) for name in records.key_fields], columns


def compute(operation: Operation, column: "pd.Series[Any]", groups: Any, value: str) -> list[Value]:  # noqa: ANN401
    """Return the lowest, the highest or the exact sum of each group in pandas' groups, None where all are missing.

    Raises:
        RefusedError: DynamoDB cannot store a sum.
    """
    is_small = column.dtype == "int64" and np.abs(column.to_numpy("float64")).sum() < INT64_SAFE
    if is_small or (operation != "sum" and column.dtype != object):
        return to_values(groups.agg(operation))
    combine: dict[Operation, Callable[[list[Any]], Value]] = {"min": min, "max": max, "sum": sum_numbers}
    found = [combine[operation](present) if present else None for present in list_present(column, groups)]
    if operation == "sum":
        for number, total in enumerate(found):
            exact = Decimal(total or 0).normalize(EXACT)  # type: ignore[arg-type] # a number
            if exact and (len(exact.as_tuple().digits) > MOST_DIGITS or exact.adjusted() not in EXPONENTS):
                name = ", ".join(map(str, groups.size().index.to_frame().iloc[number]))
                raise RefusedError(
                    f"the sum {value} of {name} has more than {MOST_DIGITS} digits, or is not within 1e-130 and "
                    f"9.9e125; {NOTHING_STORED}"
                )
    return found


def sum_numbers(values: Sequence[float]) -> int | Decimal:
    """Return the exact sum of integers, or of float64 as the shortest decimals that they stand for."""
    if all(isinstance(value, int) for value in values):
        return sum(map(int, values))
    with decimal.localcontext(EXACT):
        return sum((Decimal(repr(value)) for value in values), Decimal(0))


def list_present(column: "pd.Series[Any]", groups: Any) -> list[list[Any]]:  # noqa: ANN401 (pandas' groups)
    """Return each group's values that are not missing; iterating over pandas' groups takes 0.1 ms for each."""
    found: list[list[Any]] = [[] for _ in range(groups.ngroups)]
    for number, value in zip(groups.ngroup().tolist(), to_values(column), strict=True):
        if value is not None:
            found[number].append(value)
    return found


def to_values(column: "pd.Series[Any]") -> list[Value]:
    """Return a column as Python's values, None for missing ones."""
    values: list[Any] = column.tolist()
    return [None if math.isnan(value) else value for value in values] if column.dtype == "float64" else values


def name_keys(columns: Sequence[list[Value]]) -> list[str]:
    """Return each record's key: the text of one field, or of two a JSON array; raise a RefusedError if invalid."""
    texts = [list(map(to_text, column)) for column in columns]
    for text in (text for column in texts for text in column):
        if not text or text.startswith("#") or len(text.encode()) > MOST_KEY_BYTES:
            raise RefusedError(
                f"a key is {text[:80]!r}, expected 1 to {MOST_KEY_BYTES} bytes, the first not #; {NOTHING_STORED}"
            )
    if len(texts) == 1:
        return texts[0]
    return [json.dumps(pair, ensure_ascii=False) for pair in zip(*texts, strict=True)]


def to_text(value: Value) -> str:
    """Return a key's value as text: a number as its shortest decimal, true and false as in JSON."""
    if isinstance(value, bool):
        return json.dumps(value)
    return format(Decimal(repr(value)).normalize(), "f") if isinstance(value, float) else str(value)
