"""The market stand-in, over HTTP, against what is known of ESI."""

import gzip
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pandas as pd
import pytest

from deployments.local.market.book import make_orders
from deployments.local.market.market import TOKENS
from deployments.local.market.places import HUB_SYSTEMS, MADE_UP, OPEN_SYSTEM, find_places
from tasks.catalogue.names import HUBS, find_type, market_name, region_name, regions, type_name
from tests.support.esi import EsiMarket
from tests.support.worlds import serve

VENAL, FORGE, PERIOD_BASIS = 10000015, 10000002, 10000063
STRUCTURE = 1_000_000_000_002  # of two pages
NOW = 1_779_529_560.0  # a minute after a snapshot
HEADERS = {"X-Compatibility-Date": "2026-08-18"}
# An order of ESI's from 2023-08-04.
RECORDED = (
    b'{"duration":90,"is_buy_order":false,"issued":"2023-07-20T23:23:12Z","location_id":60013867,"min_volume":1,'
    b'"order_id":6556680193,"price":1950000,"range":"region","system_id":30000019,"type_id":656,"volume_remain":1,'
    b'"volume_total":1}'
)


@pytest.fixture
def market() -> EsiMarket:
    """Return a market whose clock is frozen."""
    return EsiMarket(clock=lambda: NOW)


@pytest.fixture
def esi(market: EsiMarket) -> Iterator[httpx.Client]:
    """Yield a client of that market."""
    with serve(market) as url, httpx.Client(base_url=url, headers=HEADERS, trust_env=False) as client:
        yield client


def get(esi: httpx.Client, region_id: int = VENAL, method: str = "GET", **query: Any) -> httpx.Response:
    """Request a page; `order_type` is all by default."""
    return esi.request(method, f"/markets/{region_id}/orders", params={"order_type": "all"} | query)


def test_page_matches_a_recorded_order(esi: httpx.Client) -> None:
    """Orders have the fields of a recorded one, in its order and with its JSON types."""
    recorded = msgspec.json.decode(RECORDED)
    for order in get(esi).json():
        assert list(order) == list(recorded)
        number = (int, float)
        for name, value in order.items():
            assert isinstance(value, number if isinstance(recorded[name], number) else type(recorded[name])), name
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", order["issued"])
        assert 1 <= order["volume_remain"] <= order["volume_total"]
        assert order["price"] == round(order["price"], 2) >= 0.01


def test_pages_share_the_snapshot(esi: httpx.Client) -> None:
    """All pages but the last have 1,000 orders, all the same headers, and together the whole order book."""
    pages = [get(esi, page=page) for page in range(1, 8)]
    sizes = [len(page.json()) for page in pages]
    assert sizes[:-1] == [1000] * 6
    assert 0 < sizes[-1] <= 1000
    assert {page.headers["Last-Modified"] for page in pages} == {"Sat, 23 May 2026 09:45:00 GMT"}
    assert {page.headers["Expires"] for page in pages} == {"Sat, 23 May 2026 09:50:00 GMT"}
    assert {page.headers["X-Pages"] for page in pages} == {"7"}
    got = [order for page in pages for order in page.json()]
    assert [order["order_id"] for order in got] == make_orders(1, VENAL, int(NOW // 300)).order_id.tolist()


def test_body_is_gzipped_on_demand(esi: httpx.Client) -> None:
    """A page is gzipped if the client accepts that, and plain otherwise."""
    plain = get(esi, method="GET")
    identity = esi.get(plain.url, headers={"Accept-Encoding": "identity"})
    assert plain.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in identity.headers
    assert identity.content == plain.content
    assert 20_000 < int(plain.headers["Content-Length"]) < 40_000
    assert 220_000 < len(identity.content) < 280_000


def test_head_has_only_headers(esi: httpx.Client) -> None:
    """HEAD has GET's headers, except for the remaining tokens, and no body."""
    head, page = get(esi, method="HEAD"), get(esi)
    own = {"x-ratelimit-remaining"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in page.headers.items() if k not in own
    }
    assert head.content == b""


@pytest.mark.parametrize(("header", "from_header"), [("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")])
def test_unchanged_page_is_304(esi: httpx.Client, header: str, from_header: str) -> None:
    """A client that already has the page gets 304 without a body."""
    page = get(esi)
    second = esi.get(page.url, headers={header: page.headers[from_header]})
    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["ETag"] == page.headers["ETag"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "error"),
    [
        pytest.param(
            "/markets/10000015/orders?order_type=all&page=8", HEADERS, 404, "page does not exist", id="after the last"
        ),
        pytest.param("/markets/10000015/orders?order_type=all", {}, 400, "X-Compatibility-Date", id="no date"),
        pytest.param("/markets/10000015/orders", HEADERS, 400, "order_type", id="no order type"),
        pytest.param("/markets/10000015/orders?order_type=any", HEADERS, 400, "order_type", id="bad order type"),
        pytest.param("/markets/10000015/orders?order_type=all&page=0", HEADERS, 400, "page '0'", id="page 0"),
        pytest.param("/markets/10000015/orders?order_type=all&page=x", HEADERS, 400, "page 'x'", id="page x"),
        pytest.param("/markets/10999999/orders?order_type=all", HEADERS, 404, "Region not found", id="no region"),
        pytest.param("/nowhere", HEADERS, 404, "Not found", id="other route"),
    ],
)
def test_invalid_requests_get_esis_errors(
    market: EsiMarket, path: str, headers: dict[str, str], status: int, error: str
) -> None:
    """An invalid request is refused with a status and an `error`."""
    with serve(market) as url:
        answer = httpx.get(url + path, headers=headers, trust_env=False)
    assert answer.status_code == status
    assert error in answer.json()["error"]


@pytest.mark.parametrize("order_type", ["buy", "sell"])
def test_order_type_has_an_effect_only_with_a_type(esi: httpx.Client, order_type: str) -> None:
    """Without `type_id`, `order_type` has no effect; with it, the page has one side of that type."""
    both = get(esi, order_type=order_type).json()
    assert {order["is_buy_order"] for order in both} == {True, False}
    wanted = both[0]["type_id"]
    one = get(esi, order_type=order_type, type_id=wanted).json()
    assert {order["type_id"] for order in one} <= {wanted}
    assert {order["is_buy_order"] for order in one} <= {order_type == "buy"}


def test_token_limit_is_enforced() -> None:
    """A 2xx costs two tokens, a 4xx five; with `enforce_limit`, 429 with `Retry-After` follows the last."""
    market = EsiMarket(clock=lambda: NOW, enforce_limit=True)
    with serve(market) as url, httpx.Client(base_url=url, headers=HEADERS, trust_env=False) as esi:
        assert get(esi).headers["X-Ratelimit-Remaining"] == str(TOKENS - 2)
        assert get(esi, page=99).headers["X-Ratelimit-Remaining"] == str(TOKENS - 7)
        market.tokens.add(NOW, TOKENS)
        refused = get(esi)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "900")


def test_error_limit_is_enforced() -> None:
    """After a hundred errors within a minute, any request gets 420 with the seconds until the reset."""
    market = EsiMarket(clock=lambda: NOW, enforce_limit=True)
    market.errors.add(NOW, 100)
    with serve(market) as url:
        refused = httpx.get(f"{url}/markets/10000015/orders?order_type=all", headers=HEADERS, trust_env=False)
    assert refused.status_code == 420
    assert 0 < int(refused.headers["X-Esi-Error-Limit-Reset"]) <= 60


def test_requests_are_counted(market: EsiMarket, esi: httpx.Client) -> None:
    """Requests are counted by method, status and page, in the market and at `/_stats`."""
    get(esi, method="HEAD")
    get(esi, page=3)
    assert (market.requests, market.pages) == ({"HEAD 200": 1, "GET 200": 1}, {"3": 1})
    stats = esi.get("/_stats").json()
    assert stats == {"requests": {"HEAD 200": 1, "GET 200": 1}, "pages": {"3": 1}, "most_in_flight": 1}


def test_next_snapshot_changes_a_tenth() -> None:
    """About a tenth of the types change between two snapshots; a few orders come and go, the rest keep their ids."""
    before, after = (make_orders(1, VENAL, index).set_index("order_id") for index in (1000, 1001))
    assert 0 < len(before.index.symmetric_difference(after.index)) < 0.01 * len(before)
    stayed = before.index.intersection(after.index)
    kept = ["type_id", "is_buy_order", "location_id", "system_id", "volume_total"]
    pd.testing.assert_frame_equal(before.loc[stayed, kept], after.loc[stayed, kept])
    changed = (before.loc[stayed, ["price", "volume_remain"]] != after.loc[stayed, ["price", "volume_remain"]]).any(
        axis=1
    )
    share = before.loc[stayed][changed].type_id.nunique() / before.type_id.nunique()
    assert 0.07 < share < 0.13


def test_orders_depend_only_on_seed_region_and_time() -> None:
    """The same seed, region and time give the same orders; a different one gives others."""
    orders = make_orders(1, VENAL, 1000)
    pd.testing.assert_frame_equal(orders, make_orders(1, VENAL, 1000))
    assert not orders.equals(make_orders(2, VENAL, 1000))
    assert not orders.order_id.isin(make_orders(1, 10000003, 1000).order_id).any()


@pytest.mark.parametrize(
    ("seed", "market_id", "sha256"),
    [
        pytest.param(1, VENAL, "26892eada142ba8f", id="region"),
        pytest.param(1, 19000003, "173408f1e8074d5d", id="made-up region"),
        pytest.param(2, STRUCTURE, "317503a9f683e249", id="structure"),
    ],
)
def test_orders_do_not_depend_on_their_places(seed: int, market_id: int, sha256: str) -> None:
    """Everything but the places is as in the first version, which had five stations."""
    orders = make_orders(seed, market_id, 1000).drop(columns=["location_id", "system_id"])
    assert hashlib.sha256(orders.to_csv(index=False).encode()).hexdigest().startswith(sha256)


@pytest.mark.parametrize("hub_id", HUBS)
@pytest.mark.parametrize("seed", [1, 2])
def test_most_orders_of_a_hubs_region_are_in_the_hub(hub_id: int, seed: int) -> None:
    """Most volume and most orders are in the hub, the rest in about forty stations in twenty systems."""
    orders = make_orders(seed, HUBS[hub_id].region_id, 1000)
    for is_buy in (False, True):
        volumes = orders[orders.is_buy_order == is_buy].groupby("location_id").volume_remain.sum()
        assert 0.5 < volumes[hub_id] / volumes.sum() < 0.98
    assert 0.5 < (orders.location_id == hub_id).mean() < 0.75
    in_stations = orders[orders.location_id < 10**12]
    assert 30 <= in_stations.location_id.nunique() <= 50
    assert 15 <= in_stations.system_id.nunique() <= 25
    assert set(orders[orders.location_id == hub_id].system_id) == {HUB_SYSTEMS[hub_id]}


@pytest.mark.parametrize("region_id", [VENAL, FORGE, 19000003])
def test_structures_of_a_region_have_only_buy_orders(region_id: int) -> None:
    """About a quarter of the buy orders are in structures, as in Domain in 2025, and no sell orders."""
    orders = make_orders(1, region_id, 1000)
    in_structure = orders.location_id >= 10**12
    assert not in_structure[~orders.is_buy_order].any()
    assert 0.2 < in_structure[orders.is_buy_order].mean() < 0.3
    assert orders[~in_structure].location_id.between(60_000_000, 69_999_999).all()
    assert orders.system_id.between(30_000_000, 39_999_999).all()
    assert orders[in_structure].system_id.isin(orders[~in_structure].system_id).all()
    assert orders.groupby("location_id").system_id.nunique().eq(1).all()


def test_regions_share_no_places() -> None:
    """No two regions have a station, a structure or a system in common."""
    places = [find_places(region_id) for region_id in {*regions(), *MADE_UP}]
    locations = [location_id for some in places for location_id in some.location_ids.tolist()]
    systems = [system_id for some in places for system_id in set(some.system_ids.tolist())]
    assert len(locations) == len(set(locations))
    assert len(systems) == len(set(systems))


def test_structure_has_only_its_own_orders() -> None:
    """All orders of a structure's market are in it, buy and sell orders."""
    orders = make_orders(1, STRUCTURE, 1000)
    assert set(orders.location_id) == {STRUCTURE}
    assert set(orders.system_id) == {OPEN_SYSTEM}
    assert set(orders.is_buy_order) == {True, False}


def test_regions_have_their_real_pages() -> None:
    """Each smaller region has as many pages as in December 2025, an empty one a single page."""
    for region_id, region in regions().items():
        if region.pages <= 20:
            orders = make_orders(1, region_id, 5_000_000)
            assert max(1, -(-len(orders) // 1000)) == region.pages
            assert orders.empty == region.is_empty


def test_empty_region_has_an_empty_page(esi: httpx.Client) -> None:
    """A region without orders has one page, `[]`."""
    page = get(esi, PERIOD_BASIS)
    assert (page.headers["X-Pages"], page.json()) == ("1", [])


def test_snapshot_moves_on_with_the_clock() -> None:
    """When it is due, the next snapshot is served, with a new `Last-Modified` and new pages."""
    times = [NOW]
    with serve(EsiMarket(clock=lambda: times[-1])) as url, httpx.Client(base_url=url, headers=HEADERS) as esi:
        first = get(esi)
        times.append(NOW + 300)
        second = get(esi)
    assert second.headers["Last-Modified"] == first.headers["Expires"]
    assert second.content != first.content


def test_names_are_known() -> None:
    """Types, regions and hubs have names, found in any case; an unknown id is its own name."""
    assert (type_name(34), find_type("tritanium"), find_type("No Such Thing")) == ("Tritanium", 34, None)
    assert (region_name(FORGE), region_name(5), type_name(5)) == ("The Forge", "5", "5")
    assert (market_name(60003760), market_name(FORGE), market_name(30000142)) == ("Jita 4-4", "The Forge", "30000142")


def test_pages_are_reproducible() -> None:
    """A page's bytes are the same each time."""
    first, second = (EsiMarket(clock=lambda: NOW).prepare(PERIOD_BASIS, 5).result() for _ in range(2))
    assert first == second
    assert gzip.decompress(first.pages[0]) == b"[]"


@pytest.mark.parametrize("pages", [1, 3])
def test_region_of_any_size_is_made_up(esi: httpx.Client, pages: int) -> None:
    """A made-up region has as many pages as the last digits of its id say."""
    bodies = [get(esi, 19000000 + pages, page=page) for page in range(1, pages + 1)]
    assert {body.headers["X-Pages"] for body in bodies} == {str(pages)}
    assert [len(body.json()) for body in bodies[:-1]] == [1000] * (pages - 1)
    assert 0 < len(bodies[-1].json()) <= 1000
