"""What a declaration may say: pydantic models, which Prefect's UI shows as a form."""

import re
from itertools import combinations
from operator import eq
from typing import Annotated, Any, Literal, Self

import httpx
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tasks.allowed import allow
from tasks.network import check_url, fits_header

FieldType = Literal["int", "number", "str", "bool"]
Operation = Literal["min", "max", "sum"]
What = Literal["count"] | dict[Operation, str]
OPERATIONS = "count, {min: field}, {max: field} or {sum: field}"
Scalar = bool | int | float | str
EXAMPLE = "https://esi.evetech.net/markets/prices"
OWN_HEADERS = {"accept-encoding", "connection", "content-length", "host", "transfer-encoding"}
SECRET_HEADERS = re.compile(r"authorization|cookie|token|secret|password|api-?key", re.IGNORECASE)
TYPES: dict[str, set[type]] = {"int": {int}, "number": {int, float}, "str": {str}, "bool": {bool}}
FITS: dict[str, set[str]] = {  # the operations for fields of each type
    "int": {"min", "max", "sum"},
    "number": {"min", "max", "sum"},
    "str": {"min", "max"},
    "bool": set(),
}


def check_header_name(name: str) -> str:
    """Return `name`; raise a ValueError if no header can have it."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{name!r} is not a header's name: give letters, digits and -, such as X-Pages")
    return name


def check_pointer(pointer: str) -> str:
    """Return `pointer`; raise a ValueError if it is not a JSON pointer (RFC 6901)."""
    if pointer and not re.fullmatch(r"(/([^~/\\\"\x00-\x1f]|~0|~1)*)+", pointer):
        raise ValueError(f"{pointer!r} is not a JSON pointer: give such as /data/items")
    return pointer


def check_source_url(url: str) -> str:
    """Return a source's URL without surrounding whitespace; it may have a query. Raise a ValueError if invalid."""
    address, _, query = url.strip().partition("?")
    check_url(address, "url", EXAMPLE)
    if "#" in query:
        raise ValueError(f"url is {url!r}: give it without a fragment, #…")
    return url.strip()


def check_attribute(name: str) -> str:
    """Return the name of a field or value; raise a ValueError if it cannot be an attribute of an item."""
    if not name or name in {"pk", "sk"} or name.startswith("aws:") or re.search(r"[\\\"\x00-\x1f]", name):
        raise ValueError(f'{name!r} cannot be an attribute: give another name than pk, sk and aws:…, without \\ and "')
    return name


HeaderName = Annotated[str, AfterValidator(check_header_name)]
Pointer = Annotated[str, AfterValidator(check_pointer)]
Attribute = Annotated[str, AfterValidator(check_attribute)]


class Declared(BaseModel):
    """A part of a declaration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def check_keys(cls, given: Any) -> Any:  # noqa: ANN401 (whatever is given)
        """Return what is given; raise a ValueError if it has an unknown key."""
        if isinstance(given, dict) and (unknown := [key for key in given if key not in cls.model_fields]):
            raise ValueError(f"{unknown[0]!r} is not a key here: give {', '.join(cls.model_fields)}")
        return given


class Pages(Declared):
    """How the API counts pages, or that it has none."""

    parameter: str = Field(default="page", min_length=1, description="The query parameter with the page's number.")
    first: int = Field(default=1, ge=0, description="The first page's number.")
    count_header: HeaderName | None = Field(default=None, description="The response header with the number of pages.")
    single: bool = Field(default=False, description="Whether a single response has all items.")

    @model_validator(mode="after")
    def check(self) -> Self:
        """Raise a ValueError unless it is clear how many pages there are."""
        if self.single == (self.count_header is not None):
            raise ValueError("give count_header, the response header with the number of pages, or single: true")
        return self


class ItemField(Declared):
    """A field of an item."""

    type: FieldType = Field(description="number is any JSON number, stored exactly.")
    path: Pointer = Field(default="", description="A JSON pointer within the item; by default the field's own name.")
    optional: bool = Field(default=False, description="Whether items may lack it, or have null.")


DeclaredField = Annotated[
    ItemField,
    BeforeValidator(
        lambda given: {"type": given} if isinstance(given, str) else given, json_schema_input_type=FieldType | ItemField
    ),
]


class Source(Declared):
    """An API's endpoint: where its items are, and which of their fields are kept."""

    url: Annotated[str, AfterValidator(check_source_url)] = Field(description="Of the pages, without their number.")
    headers: dict[HeaderName, str] = Field(default={}, description="Of each request; no secrets.")
    pages: Pages = Field(description="parameter, first and count_header; or single: true.")
    snapshot_header: HeaderName | None = Field(
        default=None, description="The response header that names the snapshot; null if there is none."
    )
    expires_header: HeaderName | None = Field(default=None, description="The response header with its end.")
    items: Pointer = Field(default="", description="A JSON pointer to the array; empty for the body.")
    fields: dict[Attribute, DeclaredField] = Field(min_length=1, description="The fields to keep, by name.")
    authorization_block: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,100}$")] | None = Field(
        default=None, description="The Secret block with the header Authorization, or with headers by name."
    )
    requests_per_second: Annotated[float, Field(gt=0, le=10_000)] | None = Field(default=None, description="The most.")
    max_fresh_seconds: float = Field(
        default=3600.0, gt=0, le=31_536_000, description="How far ahead of the API's clock its dates are believed."
    )

    @model_validator(mode="after")
    def check(self) -> Self:
        """Raise a ValueError unless pages and headers can be requested, and each field has a path of its own."""
        for name, value in self.headers.items():
            if SECRET_HEADERS.search(name):
                raise ValueError(
                    f"headers has {name}, which Prefect would store in plain text: put its value into a Secret block, "
                    "and give the block's name as authorization_block"
                )
            if name.lower() in OWN_HEADERS:
                raise ValueError(f"headers has {name}, which the client sets itself: leave it out")
            if not fits_header(value):
                raise ValueError(f"the value of {name} in headers does not fit a header: give printable ASCII")
        if not self.pages.single and self.pages.parameter in httpx.URL(self.url).params:
            raise ValueError(f"url has a page's number, {self.pages.parameter}=…: leave it out")
        for one, other in combinations(self.fields, 2):
            if all(map(eq, self.path_of(one), self.path_of(other))):  # as far as the shorter one goes
                raise ValueError(f"fields has {one} and {other} at one path, or one within the other")
        return self

    def path_of(self, name: str) -> tuple[str, ...]:
        """Return the members that lead to a field."""
        return split_pointer(self.fields[name].path) or (name,)

    @property
    def base_url(self) -> str:
        """The URL without path and query: rate limits are a host's."""
        return str(httpx.URL(self.url).join("/")).rstrip("/")


class Records(Declared):
    """How items become records."""

    key: Annotated[str | list[str], allow("a field's name, or a list of two")] = Field(
        description="The field that is pk; or two, pk and sk."
    )
    where: dict[
        str, Annotated[Scalar | Annotated[list[Scalar], Field(min_length=1)], allow("a value, or a list of values")]
    ] = Field(default={}, description="Values that items must have; a list is one of.")
    once_by: str | None = Field(default=None, description="A field by which an item that appears twice counts once.")
    values: dict[Attribute, Annotated[What, allow(OPERATIONS)]] = Field(
        default={},  # not None: Prefect's new UI shows no map that may be null
        description=f"{OPERATIONS}; without it each item is a record.",
    )

    @property
    def key_fields(self) -> list[str]:
        """The fields of the key."""
        return [self.key] if isinstance(self.key, str) else self.key


def check_declaration(source: Source, records: Records) -> None:
    """Raise a ValueError, which begins with the declaration's line, if records need what the source does not have."""
    if len(records.key_fields) not in {1, 2} or len(set(records.key_fields)) < len(records.key_fields):
        raise ValueError(f"records.key is {records.key}: give one field, or two different ones")
    for name in records.key_fields:
        check_field(source, name, "records.key", is_needed=True)
    if records.once_by is not None:
        check_field(source, records.once_by, "records.once_by", is_needed=True)
    for name, values in records.where.items():
        kind = check_field(source, name, f"records.where.{name}").type
        for value in values if isinstance(values, list) else [values]:
            if type(value) not in TYPES[kind]:
                raise ValueError(f"records.where.{name} is {value!r}: the field's type is {kind}, give such a value")
    for name, what in records.values.items():
        if isinstance(what, dict):
            check_value(source, f"records.values.{name}", what)


def check_field(source: Source, name: str, line: str, *, is_needed: bool = False) -> ItemField:
    """Return a field that a line of the declaration names; raise a ValueError if it is missing, or wrongly optional."""
    if name not in source.fields:
        raise ValueError(f"{line}: {name!r} is not declared: give one of source.fields, {', '.join(source.fields)}")
    field = source.fields[name]
    if is_needed and field.optional:
        raise ValueError(f"{line}: {name!r} is optional: give a field that every item has")
    return field


def check_value(source: Source, line: str, what: dict[Operation, str]) -> None:
    """Raise a ValueError unless a value is one operation on a field that it fits."""
    if len(what) != 1:
        raise ValueError(f"{line} is {what}: give one of min, max and sum, such as {{min: price}}")
    [(operation, name)] = what.items()
    kind = check_field(source, name, line).type
    if operation not in FITS[kind]:
        raise ValueError(f"{line}: {operation} does not fit {name!r}, which is {kind}: give a field of another type")


def split_pointer(pointer: str) -> tuple[str, ...]:
    """Return the members that a JSON pointer names."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
