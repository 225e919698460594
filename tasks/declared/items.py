"""Decodes a page's items to columns, by the fields that a source declares."""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import reduce
from operator import attrgetter
from typing import Any

import httpx
import msgspec
import numpy as np

from tasks.declared.declaration import FieldType, Source, split_pointer
from tasks.esi.body import decode
from tasks.esi.errors import RefusedError
from tasks.orders.columns import concatenate

Columns = dict[str, np.ndarray]  # by field: int64, float64, bool; object for text, larger or missing

TYPES: dict[FieldType, Any] = {"int": int, "number": float, "str": str, "bool": bool}
MOST_DIGITS = 15  # of a number: so many survive the way through a float64
MOST_INTEGER = 10**38  # DynamoDB keeps 38 digits
SMALLEST, LARGEST = 1e-130, 9.9e125  # DynamoDB's range
DIGITS = bytes.maketrans(b"0123456789.", b"0" * 11)
LONG = b"0" * (MOST_DIGITS + 1)
NOTHING_STORED = "nothing was stored, the next run tries again"
TINY = re.compile(rb"[eE]-[0-9]{3}")


class ItemDecoder:
    """Decodes pages of a source."""

    def __init__(self, source: Source) -> None:
        self._fields = {name: source.fields[name] for name in source.fields}
        self._paths = {name: source.path_of(name) for name in source.fields}
        self._pointer = split_pointer(source.items)
        parts = dict.fromkeys(part for path in [self._pointer, *self._paths.values()] for part in path)
        self._members = {part: f"m{number}" for number, part in enumerate(parts)}  # of the structs that msgspec decodes
        self._getters = {name: self._make_getter(name) for name in source.fields}
        self._api = httpx.URL(source.url).host
        self._fast = self._make_type(TYPES)
        self._exact = self._make_type(TYPES | {"number": Any})

    def decode(self, body: bytes, what: str) -> Columns:
        """Decode and validate a page's JSON; `what` names it in messages.

        Raises:
            TransientError: the body is not JSON.
            RefusedError: the items are not an array there, or a field is missing, of the wrong type or out of range.
        """
        # A body without long runs of digits, or exponents of three, has no number that a float64 would round.
        is_exact = LONG in body.translate(DIGITS) or ((b"e-" in body or b"E-" in body) and bool(TINY.search(body)))
        kind, float_hook = (self._exact, Decimal) if is_exact else (self._fast, None)
        found = decode(body, kind, what, float_hook, self._api)
        for part in self._pointer:
            found = getattr(found, self._members[part])
        return {name: self._make_column(name, found, what) for name in self._fields}

    def _make_type(self, types: dict[FieldType, Any]) -> Any:  # noqa: ANN401 (a type)
        """Return the type that msgspec decodes a body to."""
        tree: dict[str, Any] = {}
        for name, path in self._paths.items():
            node = tree
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = self._fields[name]
        kind: Any = list[self._make_struct(tree, types)]  # type: ignore[misc] # made here
        for part in reversed(self._pointer):
            kind = msgspec.defstruct("Body", [(self._members[part], kind, msgspec.field(name=part))])
        return kind

    def _make_struct(self, tree: dict[str, Any], types: dict[FieldType, Any]) -> type[msgspec.Struct]:
        """Return a struct for an object with the members of a tree, whose leaves are fields."""
        members = []
        for name, node in tree.items():
            kind = self._make_struct(node, types) if isinstance(node, dict) else types[node.type]
            if is_optional(node):
                members.append((self._members[name], kind | None, msgspec.field(name=name, default=None)))
            else:
                members.append((self._members[name], kind, msgspec.field(name=name)))
        return msgspec.defstruct("Item", members, gc=False, kw_only=True)

    def _make_column(self, name: str, items: list[Any], what: str) -> np.ndarray:
        field = self._fields[name]
        values = list(map(self._getters[name], items))
        if field.type == "number":
            if set(map(type, values)) - {float}:
                values = [to_float(value, f"{what}: {name}", is_optional=field.optional) for value in values]
            column = np.fromiter(values, "float64", len(values)) + 0.0  # never -0.0
            size = np.abs(column[column != 0])
            if ((size < SMALLEST) | (size > LARGEST)).any():
                raise RefusedError(
                    f"{what}: {name} has a number that DynamoDB cannot store, expected 1e-130 to 9.9e125"
                )
            return column
        if field.type == "int" and not field.optional:
            try:
                return np.fromiter(values, "int64", len(values))
            except OverflowError:
                pass
        if field.type == "int" and (long := [value for value in values if abs(value or 0) >= MOST_INTEGER]):
            raise RefusedError(f"{what}: {name} is {long[0]}, expected at most 38 digits")
        column = np.empty(len(values), "bool" if field.type == "bool" and not field.optional else "object")
        column[:] = values
        return column

    def _make_getter(self, name: str) -> Callable[[Any], Any]:
        """Return a function that reads a field of a decoded item, None if it is missing."""
        members = [self._members[part] for part in self._paths[name]]
        if not self._fields[name].optional:
            return attrgetter(".".join(members))
        return lambda item: reduce(lambda value, member: getattr(value, member, None), members, item)


def is_optional(node: Any) -> bool:  # noqa: ANN401 (a field, or a tree of them)
    """Return whether a member may be missing: it is an optional field, or has only such."""
    return all(map(is_optional, node.values())) if isinstance(node, dict) else bool(node.optional)


def to_float(value: object, what: str, *, is_optional: bool = False) -> float:
    """Return a JSON number as the float64 that prints as exactly it, NaN for None; refuse one that has none."""
    if value is None and is_optional:
        return float("nan")
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        raise RefusedError(f"{what} is {value!r}, expected a number; {NOTHING_STORED}")
    exact = Decimal(value) if isinstance(value, int) else Decimal(str(value))
    if len("".join(map(str, exact.as_tuple().digits)).rstrip("0")) > MOST_DIGITS:
        raise RefusedError(
            f"{what} is {value}, expected at most {MOST_DIGITS} digits: leave the field out; {NOTHING_STORED}"
        )
    if exact and not float(exact):
        raise RefusedError(f"{what} is {value}, expected 1e-130 to 9.9e125; {NOTHING_STORED}")
    return float(exact)


def join(columns: list[np.ndarray]) -> np.ndarray:
    """Return columns of pages as one."""
    kinds = {column.dtype for column in columns}
    return concatenate(columns) if len(kinds) == 1 and not columns[0].dtype.hasobject else np.concatenate(columns)
