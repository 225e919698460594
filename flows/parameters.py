"""Types of the flows' parameters; a wrong value is refused before any request, with what is allowed."""

import re
from collections import Counter
from typing import Annotated, Any, get_args

from annotated_types import Predicate
from pydantic import AfterValidator, Field

from tasks.allowed import Allowed, allow
from tasks.catalogue.names import list_regions
from tasks.esi.markets import FIRST_STRUCTURE_ID, Market, find_market, is_market
from tasks.orders.choices import Detail, Key, OrderType, Price
from tasks.table.requests import check_table_name


def fill_in(table_name: str, **ids: int) -> str:
    """Return a template with its ids filled in; raise a ValueError if DynamoDB does not accept the name."""
    return check_table_name(table_name.format(**ids))


def allow_one_of(choices: Any, meaning: str) -> Allowed:  # noqa: ANN401 (a Literal)
    """Return a validator of choices; see `allow`."""
    *others, last = get_args(choices)
    return allow(f"{', '.join(others)} or {last}", meaning)


def fits(**ids: int) -> AfterValidator:
    """Return a validator of templates, which must give a valid name with these ids."""
    return AfterValidator(lambda template: fill_in(template, **ids) and template)  # the name is never empty


def check_markets(region_id: int, markets: list[int] | None, table_name: str, key: str) -> dict[Market, str]:
    """Return the markets to store, by default the region alone, each with the name of its table.

    Raises:
        ValueError: there is another region, a duplicate, or several whose keys would collide in one table.
    """
    ids = markets or [region_id]
    if others := [each for each in ids if find_market(each).kind == "region" and each != region_id]:
        raise ValueError(
            f"markets has {others[0]}, which is not in region {region_id}: give the region itself, or systems, "
            "stations or structures in it"
        )
    if len(set(ids)) < len(ids):
        raise ValueError(f"markets is {ids}: give each market once")
    if len(ids) > 1 and key == "type" and "{market_id}" not in table_name:
        raise ValueError(
            f"table_name {table_name!r} with key 'type' would put {len(ids)} markets into one table, where their item "
            'types have the same keys: give key="market_type", or table_name="MarketData-{market_id}"'
        )
    return {find_market(each): fill_in(table_name, region_id=region_id, market_id=each) for each in ids}


def check_tables(
    region_ids: list[int] | None, markets: dict[int, list[int]] | None, table_name: str, key: str
) -> dict[int, dict[Market, str]]:
    """Return the markets of each region, the largest region first; by default all regions that have a market.

    Raises:
        ValueError: see `check_markets`; or keys of several regions would collide in one table.
    """
    given = markets or {}
    listed = list_regions(region_ids or list(given) or None)
    if len(listed) > 1 and key == "type" and not re.search(r"\{(region|market)_id\}", table_name):
        raise ValueError(
            f"table_name {table_name!r} with key 'type' would put {len(listed)} regions into one table, where "
            'their item types have the same keys: give table_name="MarketData-{region_id}", or key="market_type"'
        )
    if missing := [region_id for region_id in given if region_id not in listed]:
        raise ValueError(f"markets has region {missing[0]}, but region_ids does not: give both the same regions")
    kept = {each: check_markets(each, given.get(each), table_name, key) for each in listed}
    counts = Counter(market.id for places in kept.values() for market in places)
    if twice := [market_id for market_id, count in counts.items() if count > 1]:
        raise ValueError(f"markets has {twice[0]} in two regions: give it in the region that it is in")
    return kept


ID = Annotated[int, Field(ge=10_000_000, le=19_999_999)]
MarketId = Annotated[int, Predicate(is_market)]
REGIONS = "regions' ids, such as [10000002, 10000043], or none for those in markets, or all that have a market"
MARKETS = "ids of markets in the region: itself, systems, stations such as 60003760 for Jita 4-4, or structures"
IN_FLIGHT = "in flight at once, in each shard of a universe"
NAME = "3 to 255 letters, digits and _ . -"

RegionId = Annotated[ID, allow("a region's id, such as 10000002 for The Forge")]
RegionIds = Annotated[list[ID] | None, Field(min_length=1), allow(f"a list of {REGIONS}")]
StructureId = Annotated[
    int, Field(ge=FIRST_STRUCTURE_ID, le=2**63 - 1), allow("a player structure's id, such as 1035466617946")
]
Markets = Annotated[
    list[MarketId] | None, Field(min_length=1), allow(f"a list of {MARKETS}; or none for the region alone")
]
RegionsMarkets = Annotated[
    dict[ID, Annotated[list[MarketId], Field(min_length=1)]] | None,
    Field(min_length=1),
    allow(f"for each region a list of {MARKETS}; or none for the regions alone"),
]
TableName = Annotated[
    str,
    AfterValidator(check_table_name),
    allow(NAME, "The DynamoDB table, with partition key pk (S); for records.key of two fields also sort key sk (S)."),
]
TableTemplate = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9_.-]|\{region_id\}|\{market_id\})+$"),
    fits(region_id=10000002, market_id=60003760),
    allow(f"{NAME}, with {{region_id}} or {{market_id}} as placeholders"),
]
StructureTable = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9_.-]|\{structure_id\})+$"),
    fits(structure_id=FIRST_STRUCTURE_ID),
    allow(f"{NAME}, with {{structure_id}} as a placeholder", "The DynamoDB table, with partition key pk (S)."),
]
BlockName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9-]{1,100}$"),
    allow(
        "the name of a Secret block: lowercase letters, digits and -",
        "The Secret block with client_id, refresh_token and optionally client_secret for EVE SSO.",
    ),
]
Sides = Annotated[OrderType, allow_one_of(OrderType, "The orders to aggregate; item types without any have no record.")]
PriceChoice = Annotated[
    Price,
    allow_one_of(Price, "How a record's price is computed; percentile_5 is the mean of the best 5 % of the volume."),
]
DetailChoice = Annotated[
    Detail, allow_one_of(Detail, "compact has price and volume; full and fuzzwork add the maps buy and sell.")
]
KeyChoice = Annotated[
    Key,
    allow_one_of(Key, "type: pk is the item type; market_type: pk is the market and sk the type, for many markets."),
]
FetchConcurrency = Annotated[int, Field(ge=1, le=500), allow(f"1 to 500, the pages {IN_FLIGHT}")]
StoreConcurrency = Annotated[int, Field(ge=1, le=100), allow(f"1 to 100, the BatchWriteItem calls {IN_FLIGHT}")]
Concurrency = Annotated[int, Field(ge=1, le=113), allow("1 to 113, the regions in progress at once in each shard")]
Shards = Annotated[
    int,
    Field(ge=1, le=50),
    allow("1 to 50, the runs of universe/shard that share the regions; 1 keeps all in this process"),
]
Force = Annotated[
    bool,
    allow("true or false", "Also store a snapshot that is stored already, has shrunk, or replaces other records."),
]
KeepDays = Annotated[
    int | None,
    Field(ge=1, le=36_500),
    allow("1 to 36500, the days until DynamoDB may remove the item, by its attribute expires_at; or none for never"),
]
