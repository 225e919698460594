"""Markets and tables that do not fit each other: refused before any request."""

from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError

from flows.market_data import market_data
from flows.universe import universe
from tasks.table.errors import KeySchemaError
from tests.support.esi import EsiMarket
from tests.support.markets import REGION, keep

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


def test_wrong_keys_are_named(market: EsiMarket, places: list[int], table_name: str) -> None:
    """A table with the other key schema is refused before any request, and the message has both."""
    market_data(REGION, table_name)
    market.reset_counts()
    with pytest.raises(KeySchemaError, match=r"has the key pk \(S\), key='market_type' needs pk \(S\) and sk \(S\)"):
        keep(table_name, places)
    other = f"{table_name}-other"
    keep(other, places[2:])
    market.reset_counts()
    with pytest.raises(KeySchemaError, match=r"has the key pk \(S\) and sk \(S\), key='type' needs pk \(S\):"):
        market_data(REGION, other)
    assert not market.requests


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"markets": [REGION, 60000004]}, 'key="market_type", or table_name="MarketData-{market_id}"'),
        ({"markets": [10000002]}, "10000002, which is not in region 10000005"),
        ({"markets": [60000004, 60000004], "key": "market_type"}, "give each market once"),
    ],
    ids=str,
)
def test_markets_that_do_not_go_together_are_refused(market: EsiMarket, given: dict[str, Any], message: str) -> None:
    """Markets that would share keys, are in another region or are given twice are refused before any request."""
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        market_data(REGION, **given)
    assert not market.requests


@pytest.mark.parametrize(
    "given", [{"markets": []}, {"markets": [7]}, {"markets": "Jita"}, {"region_id": 30000142}], ids=str
)
def test_what_is_no_market_is_refused(market: EsiMarket, given: dict[str, Any]) -> None:
    """An id that is not a market's, or not a region's where one is needed, is refused before any request."""
    with pytest.raises(ParameterTypeError, match="is refused: give "):
        market_data(**{"region_id": REGION} | given)
    assert not market.requests


def test_market_in_two_regions_is_refused(market: EsiMarket) -> None:
    """The universe refuses a market in two regions, which would overwrite each other's records."""
    with pytest.raises(ValueError, match="markets has 60003760 in two regions"):
        universe(table_name="Hubs", key="market_type", markets={REGION: [60003760], 10000003: [60003760]})
    assert not market.requests
