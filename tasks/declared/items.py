"""Decodes a page's items to columns, by the fields that a source declares."""

import re
from array import array
from collections import UserDict
from collections.abc import Callable, MutableSequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import httpx
import msgspec

from tasks.declared.declaration import FieldType, ItemField, Source, split_pointer
from tasks.esi.body import decode
from tasks.esi.errors import RefusedError

Column = MutableSequence[Any]  # an array of 64-bit numbers if all fit and none may be missing, otherwise a list
TYPES: dict[FieldType, Any] = {"int": int, "number": float, "str": str, "bool": bool}
ARRAYS: dict[FieldType, str] = {"int": "q", "number": "d"}
MOST_DIGITS = 15  # of a number: so many survive the way through a float64
MOST_INTEGER = 10**38  # DynamoDB keeps 38 digits
SMALLEST, LARGEST = 1e-130, 9.9e125  # DynamoDB's range
DIGITS = bytes.maketrans(b"0123456789.", b"0" * 11)
LONG = b"0" * (MOST_DIGITS + 1)
NOTHING_STORED = "nothing was stored, the next run tries again"
TINY = re.compile(rb"[eE]-[0-9]{3}")


class Columns(UserDict[str, Column]):
    """The values of items by field. In a dict, Prefect would look at each of them."""


def make_decoder(source: Source) -> Callable[[bytes, str], Columns]:
    """Return a function that decodes and validates a page's JSON; its second argument names the page in messages.

    Raises:
        TransientError: the body is not JSON.
        RefusedError: the items are not an array there, or a field is missing, of the wrong type or out of range.
    """
    fast, exact = make_type(source, TYPES), make_type(source, TYPES | {"number": Any})
    pointer, api = split_pointer(source.items), httpx.URL(source.url).host

    def decode_page(body: bytes, what: str) -> Columns:
        # A body without long runs of digits, or exponents of three, has no number that a float64 would round.
        is_exact = LONG in body.translate(DIGITS) or ((b"e-" in body or b"E-" in body) and bool(TINY.search(body)))
        kind, float_hook = (exact, Decimal) if is_exact else (fast, None)
        items = decode(body, kind, what, float_hook, api)
        for part in pointer:
            items = getattr(items, identify(part))
        return Columns({name: make_column(source, name, items, f"{what}: {name}") for name in source.fields})

    return decode_page


def make_type(source: Source, types: dict[FieldType, Any]) -> Any:  # noqa: ANN401 (a type)
    """Return the type that msgspec decodes a body to."""
    tree: dict[str, Any] = {}
    for name, field in source.fields.items():
        node = tree
        *parents, last = source.path_of(name)
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = field
    kind: Any = list[make_item_type(tree, types)]  # type: ignore[misc] # made here
    for part in reversed(split_pointer(source.items)):
        kind = msgspec.defstruct("Body", [(identify(part), kind, msgspec.field(name=part))])
    return kind


def make_item_type(node: dict[str, Any] | ItemField, types: dict[FieldType, Any]) -> Any:  # noqa: ANN401 (a type)
    """Return the type of a field, or of an object with a tree of them."""
    if isinstance(node, ItemField):
        return types[node.type]
    members = []
    for name, inner in node.items():
        kind = make_item_type(inner, types)
        if is_optional(inner):
            members.append((identify(name), kind | None, msgspec.field(name=name, default=None)))
        else:
            members.append((identify(name), kind, msgspec.field(name=name)))
    return msgspec.defstruct("Item", members, gc=False, kw_only=True)


def identify(member: str) -> str:
    """Return the attribute for a JSON object's member, whose name may be any text."""
    return f"m{member.encode().hex()}"


def is_optional(node: dict[str, Any] | ItemField) -> bool:
    """Return whether a member may be missing: it is an optional field, or has only such."""
    return node.optional if isinstance(node, ItemField) else all(map(is_optional, node.values()))


def make_column(source: Source, name: str, items: list[Any], what: str) -> Column:
    """Return the values of a field; `what` names it in messages."""
    field, values = source.fields[name], items
    for part in source.path_of(name):
        attribute = identify(part)
        values = [getattr(value, attribute, None) for value in values]
    if field.type == "number":
        values = [  # + 0.0 makes 0.0 of -0.0
            value + 0.0 if isinstance(value, float) else to_float(value, what, is_optional=field.optional)
            for value in values
        ]
        if any(value and not SMALLEST <= abs(value) <= LARGEST for value in values):
            raise RefusedError(f"{what} has a number that DynamoDB cannot store, expected 1e-130 to 9.9e125")
    if field.type in ARRAYS and not field.optional:
        with suppress(OverflowError):  # of longer integers
            return array(ARRAYS[field.type], values)
    if field.type == "int" and (long := [value for value in values if abs(value or 0) >= MOST_INTEGER]):
        raise RefusedError(f"{what} is {long[0]}, expected at most 38 digits")
    return values


def to_float(value: object, what: str, *, is_optional: bool) -> float | None:
    """Return a JSON number as the float64 that prints as exactly it; refuse one that has none."""
    if value is None and is_optional:
        return None
    if not isinstance(value, int | Decimal) or isinstance(value, bool):
        raise RefusedError(f"{what} is {value!r}, expected a number; {NOTHING_STORED}")
    exact = Decimal(value)
    if len("".join(map(str, exact.as_tuple().digits)).rstrip("0")) > MOST_DIGITS:
        raise RefusedError(
            f"{what} is {value}, expected at most {MOST_DIGITS} digits: leave the field out; {NOTHING_STORED}"
        )
    if exact and not float(exact):
        raise RefusedError(f"{what} is {value}, expected 1e-130 to 9.9e125; {NOTHING_STORED}")
    return float(exact) + 0.0


def join(pages: list[Columns]) -> Columns:
    """Return the items of several pages, in order; empty the pages, to save memory."""
    joined = Columns()
    for name in list(pages[0]):
        columns = [page.pop(name) for page in pages]
        arrays = [column for column in columns if isinstance(column, array)]
        joined[name] = array(arrays[0].typecode) if len(arrays) == len(columns) else []
        for column in columns:
            joined[name].extend(column)
    return joined
