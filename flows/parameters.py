"""What the flows' parameters may be; a wrong one is refused before anything is requested, and told what is allowed."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from tasks.esi.markets import FIRST_STRUCTURE_ID
from tasks.orders.choices import Detail, Key, OrderType, Price
from tasks.table.requests import check_table_name


@dataclass(frozen=True)
class OrGive(WrapValidator):
    """Validates a parameter, and knows in words what it may be."""

    allowed: str = ""


def or_give(allowed: str) -> OrGive:
    """Make a refusal name the value and what to give instead: `0 is refused: give 1 to 500`."""

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> object:
        refusal = PydanticCustomError(
            "refused", "{value} is refused: give {allowed}", {"value": repr(value), "allowed": allowed}
        )
        try:
            given = validate(value)
        except ValidationError:
            raise refusal from None
        if type(given) is int and isinstance(value, bool):
            raise refusal
        return given

    return OrGive(check, allowed=allowed)


def fill_in(table_name: str, region_id: int = 10000002) -> str:
    """Return the name of a region's table.

    Raises:
        ValueError: DynamoDB takes no such name.
    """
    return check_table_name(table_name.replace("{region_id}", str(region_id)))


def check_template(table_name: str) -> str:
    """Return a table name, not yet filled in, back.

    Raises:
        ValueError: filled in, it is no table name.
    """
    fill_in(table_name)
    return table_name


def check_tables(regions: int, table_name: str, key: str) -> None:
    """Raise if several regions' records could not be told apart.

    Raises:
        ValueError: they share a table, and its keys are item types alone.
    """
    if regions > 1 and key == "type" and "{region_id}" not in table_name:
        raise ValueError(
            f"table_name {table_name!r} with key 'type' would put {regions} regions into one table, where their item "
            'types have the same keys: give table_name="MarketData-{region_id}", or key="region_type"'
        )


def fill_in_structure(table_name: str, structure_id: int = FIRST_STRUCTURE_ID) -> str:
    """Return the name of a structure's table.

    Raises:
        ValueError: DynamoDB takes no such name.
    """
    return check_table_name(table_name.replace("{structure_id}", str(structure_id)))


def check_structure_table(table_name: str) -> str:
    """Return the name of a structure's table, not yet filled in, back.

    Raises:
        ValueError: filled in, it is no table name.
    """
    fill_in_structure(table_name)
    return table_name


RegionId = Annotated[int, Field(ge=10_000_000, le=19_999_999), or_give("a region's id, such as 10000002 for The Forge")]
TableTemplate = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9_.-]|\{region_id\})+$"),
    AfterValidator(check_template),
    or_give("3 to 255 letters, digits and _ . -, {region_id} is filled in"),
]
Sides = Annotated[OrderType, or_give("sell, buy or all")]
PriceChoice = Annotated[Price, or_give("min, max, mean, weighted_mean, median or percentile_5")]
DetailChoice = Annotated[Detail, or_give("compact, full or fuzzwork")]
FetchConcurrency = Annotated[int, Field(ge=1, le=500), or_give("1 to 500, the pages in flight at once")]
StoreConcurrency = Annotated[int, Field(ge=1, le=100), or_give("1 to 100, the BatchWriteItem calls in flight at once")]
KeyChoice = Annotated[Key, or_give("type, or region_type for a table that several regions share")]
RegionIds = Annotated[
    list[Annotated[int, Field(ge=10_000_000, le=19_999_999)]] | None,
    Field(min_length=1),
    or_give("a list of regions' ids, such as [10000002, 10000043], or nothing for all that have a market"),
]
Concurrency = Annotated[int, Field(ge=1, le=113), or_give("1 to 113, the regions at once")]
Shards = Annotated[int, Field(ge=1, le=50), or_give("1 to 50, the runs that share the regions")]
Force = Annotated[bool, or_give("true or false")]
TableName = Annotated[str, AfterValidator(check_table_name), or_give("3 to 255 letters, digits and _ . -")]
KeepDays = Annotated[
    int | None, Field(ge=1, le=36_500), or_give("1 to 36500, the days after which DynamoDB removes it")
]
StructureId = Annotated[
    int, Field(ge=FIRST_STRUCTURE_ID, le=2**63 - 1), or_give("a player structure's id, such as 1035466617946")
]
StructureTable = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9_.-]|\{structure_id\})+$"),
    AfterValidator(check_structure_table),
    or_give("3 to 255 letters, digits and _ . -, {structure_id} is filled in"),
]
BlockName = Annotated[
    str, Field(pattern=r"^[a-z0-9-]{1,100}$"), or_give("the name of a Secret block: small letters, digits and -")
]
