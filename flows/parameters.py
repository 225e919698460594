"""Types of the flows' parameters; a wrong value is refused before any request, with what is allowed."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.allowed import or_give
from tasks.esi.markets import FIRST_STRUCTURE_ID, Market, find_market, is_market
from tasks.orders.choices import Detail, Key, OrderType, Price
from tasks.table.requests import check_table_name


def fill_in(table_name: str, region_id: int = 10000002, market_id: int = 60003760) -> str:
    """Return the name of a market's table, from a template.

    Raises:
        ValueError: DynamoDB does not accept it.
    """
    name = table_name.replace("{region_id}", str(region_id)).replace("{market_id}", str(market_id))
    return check_table_name(name)


def fill_in_structure(table_name: str, structure_id: int = FIRST_STRUCTURE_ID) -> str:
    """Return the name of a structure's table, from a template; see `fill_in`."""
    return check_table_name(table_name.replace("{structure_id}", str(structure_id)))


def fits(fill: Callable[[str], str]) -> AfterValidator:
    """Return a validator of templates: with the default ids of `fill`, they must give a valid name."""
    return AfterValidator(lambda template: fill(template) and template)  # the name is never empty


def check_markets(region_id: int, markets: list[int] | None, table_name: str, key: str) -> list[Market]:
    """Return the markets to store: by default the region alone.

    Raises:
        ValueError: there is another region, a duplicate, or several whose keys would collide in one table.
    """
    ids = markets or [region_id]
    for market_id in ids:
        if find_market(market_id).kind == "region" and market_id != region_id:
            raise ValueError(
                f"markets has {market_id}, which is not in region {region_id}: give the region itself, or systems, "
                "stations or structures in it"
            )
    if len(set(ids)) < len(ids):
        raise ValueError(f"markets is {ids}: give each market once")
    if len(ids) > 1 and key == "type" and "{market_id}" not in table_name:
        raise ValueError(
            f"table_name {table_name!r} with key 'type' would put {len(ids)} markets into one table, where their item "
            'types have the same keys: give key="market_type", or table_name="MarketData-{market_id}"'
        )
    return [find_market(market_id) for market_id in ids]


def check_tables(
    region_ids: Sequence[int], markets: dict[int, list[int]] | None, table_name: str, key: str
) -> dict[int, list[Market]]:
    """Return the markets to store of each region.

    Raises:
        ValueError: see `check_markets`; or keys of several regions would collide in one table.
    """
    if len(region_ids) > 1 and key == "type" and not re.search(r"\{(region|market)_id\}", table_name):
        raise ValueError(
            f"table_name {table_name!r} with key 'type' would put {len(region_ids)} regions into one table, where "
            'their item types have the same keys: give table_name="MarketData-{region_id}", or key="market_type"'
        )
    given = markets or {}
    if missing := [region_id for region_id in given if region_id not in region_ids]:
        raise ValueError(f"markets has region {missing[0]}, but region_ids does not: give both the same regions")
    kept = {each: check_markets(each, given.get(each), table_name, key) for each in region_ids}
    counts = Counter(market.id for places in kept.values() for market in places)
    if twice := [market_id for market_id, count in counts.items() if count > 1]:
        raise ValueError(f"markets has {twice[0]} in two regions: give it in the region that it is in")
    return kept


ID = Annotated[int, Field(ge=10_000_000, le=19_999_999)]
RegionId = Annotated[ID, or_give("a region's id, such as 10000002 for The Forge")]
TableTemplate = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9_.-]|\{region_id\}|\{market_id\})+$"),
    fits(fill_in),
    or_give("3 to 255 letters, digits and _ . -, with {region_id} or {market_id} as placeholders"),
]
Sides = Annotated[OrderType, or_give("sell, buy or all")]
PriceChoice = Annotated[Price, or_give("min, max, mean, weighted_mean, median or percentile_5")]
DetailChoice = Annotated[Detail, or_give("compact, full or fuzzwork")]
FetchConcurrency = Annotated[int, Field(ge=1, le=500), or_give("1 to 500, the pages in flight at once")]
StoreConcurrency = Annotated[int, Field(ge=1, le=100), or_give("1 to 100, the BatchWriteItem calls in flight at once")]
KeyChoice = Annotated[Key, or_give("type, or market_type for a table with any number of markets")]


def check_market(market_id: int) -> int:
    """Return a market's id, unchanged.

    Raises:
        ValueError: it is not a market's.
    """
    if not is_market(market_id):
        raise ValueError(f"{market_id} is not the id of a market")
    return market_id


MarketId = Annotated[int, AfterValidator(check_market)]
MARKETS = "ids of markets in the region: itself, systems, stations such as 60003760 for Jita 4-4, or structures"
Markets = Annotated[list[MarketId] | None, Field(min_length=1), or_give(f"a list of {MARKETS}")]
RegionsMarkets = Annotated[
    dict[ID, Annotated[list[MarketId], Field(min_length=1)]] | None,
    Field(min_length=1),
    or_give(f"for each region a list of {MARKETS}"),
]
RegionIds = Annotated[
    list[ID] | None,
    Field(min_length=1),
    or_give("a list of regions' ids, such as [10000002, 10000043], or none for all that have a market"),
]
Concurrency = Annotated[int, Field(ge=1, le=113), or_give("1 to 113, the regions in progress at once")]
Shards = Annotated[int, Field(ge=1, le=50), or_give("1 to 50, the runs that share the regions")]
Force = Annotated[bool, or_give("true or false")]
TableName = Annotated[str, AfterValidator(check_table_name), or_give("3 to 255 letters, digits and _ . -")]
KeepDays = Annotated[
    int | None, Field(ge=1, le=36_500), or_give("1 to 36500, the days until DynamoDB may remove the item")
]
StructureId = Annotated[
    int, Field(ge=FIRST_STRUCTURE_ID, le=2**63 - 1), or_give("a player structure's id, such as 1035466617946")
]
StructureTable = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9_.-]|\{structure_id\})+$"),
    fits(fill_in_structure),
    or_give("3 to 255 letters, digits and _ . -, with {structure_id} as a placeholder"),
]
BlockName = Annotated[
    str, Field(pattern=r"^[a-z0-9-]{1,100}$"), or_give("the name of a Secret block: lowercase letters, digits and -")
]
