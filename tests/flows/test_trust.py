"""What a run does if the market misbehaves, case by case, with real servers and sockets but short waits."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.local.market.market import refuse
from tasks.esi.errors import RateLimitedError, RefusedError, TransientError
from tasks.orders.choices import Parameters, Price
from tasks.table.snapshot import MOST_AHEAD as MAX_AHEAD
from tasks.table.snapshot import TableSnapshot
from tests.support.api import Api
from tests.support.chaos.market import REGION
from tests.support.faults import market as faults
from tests.support.faults.plan import Fault, Plan
from tests.support.faults.server import serve_forgetful
from tests.support.faults.world import World

pytestmark = pytest.mark.usefixtures("store_url", "api")


PASSING = [
    *("204", "304", "408", "420", "421", "425", "429", "429 with a date"),
    *("500", "501", "502", "503", "504", "520", "error as 200", "Last-Modified ahead", "no headers"),
    *("garbled X-Pages", "X-Pages of a million", "no Last-Modified"),
    *("reset", "reset in the body", "closed", "truncated", "stalled"),
    *("broken gzip", "no gzip", "bomb", "HTML", "stale"),
]


@pytest.mark.parametrize("kinds", [PASSING[n : n + 3] for n in range(0, len(PASSING), 3)], ids=", ".join)
def test_transient_failures_are_retried(world: World, kinds: list[str]) -> None:
    """Transiently failing pages are fetched again, each once, and the table is exact."""
    summary = world.run(*(Fault(kind, where=str(page)) for page, kind in enumerate(kinds, 1)))
    assert world.is_exact()
    assert (summary.retries, summary.pages_retried) == (3, 3)
    assert summary.waiting_seconds > 0
    assert world.market.pages == {str(page): 1 + (page <= 3) for page in range(1, summary.pages + 1)}


def test_a_length_too_short_may_spoil_the_next_answer_too(world: World) -> None:
    """The rest of a page's body stays in the connection, where the next page, if any, reads it as its response."""
    summary = world.run(Fault("short Content-Length", where="2"))
    assert world.is_exact()
    assert 1 <= summary.retries <= 2
    assert world.market.pages["2"] == 2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("400", r'page 2 of region \d+: ESI answered 400 Bad Request: "planned"; not retried'),
        ("403", r'page 2 of region \d+: ESI answered 403 Forbidden: "planned"; not retried'),
        ("405", r'page 2 of region \d+: ESI answered 405 Method Not Allowed: "planned"; not retried'),
        ("404", r'page 2 of region \d+: ESI answered 404 Not Found: "planned", though the region has \d+ pages of'),
        ("redirect", r"page 2 .* 302 Found.*, to 'http://127.0.0.2:1/': redirects are not followed"),
        ("an object", r"page 2 of region \d+: Expected `array`, got `object`"),
        ("missing field", r"page 2 of region \d+: Object missing required field `price`"),
        ("negative price", r"page 2 of region \d+: Expected `float` >= 0.01"),
    ],
)
def test_what_will_not_pass_fails_at_once(world: World, kind: str, message: str) -> None:
    """A refused page is not fetched again; the run's state says which page and why, and nothing is stored."""
    world.fill()
    before = world.items()
    world.move_on()
    with pytest.raises(RefusedError, match=message):
        world.run(Fault(kind, where="2", times=9))
    assert world.market.pages["2"] == 1
    assert world.items() == before


@pytest.mark.parametrize(
    "kind",
    [
        *("400", "403", "404", "405", "408", "500", "501", "503", "redirect", "304"),
        *("no X-Pages", "garbled X-Pages", "no Last-Modified", "no headers", "Last-Modified ahead"),
        *("reset", "closed"),
    ],
)
def test_head_that_fails_gives_way_to_get(world: World, kind: str) -> None:
    """If HEAD never works, in whatever way, GET of the first page replaces it, at once or after two failures."""
    summary = world.run(Fault(kind, where="HEAD", times=99))
    assert world.is_exact()
    counts = world.market.requests
    assert 1 <= sum(count for request, count in counts.items() if request.startswith("HEAD")) <= 2
    assert world.market.pages == {str(page): 1 + (page == 1) for page in range(1, summary.pages + 1)}
    assert world.run(Fault(kind, where="HEAD", times=99)).not_modified
    assert world.market.pages == {"1": 1}


@pytest.mark.parametrize("kind", ["405", "501", "no X-Pages", "Last-Modified ahead", "503"])
def test_page_is_found_missing_without_head(world: World, kind: str) -> None:
    """If HEAD never works, a 404 within the pages makes the run check by GET whether the snapshot has moved on."""
    with pytest.raises(RefusedError, match=r"page 2 .* 404 Not Found: \"planned\", though the region has \d+ pages of"):
        world.run(Fault(kind, where="HEAD", times=99), Fault("404", where="2", times=9))
    assert world.market.pages["2"] == 1


@pytest.mark.parametrize("kind", ["no X-Pages", "garbled X-Pages", "no Last-Modified", "503", "Last-Modified ahead"])
def test_head_that_fails_once_is_retried(world: World, kind: str) -> None:
    """A HEAD that fails once, even by a header, is followed by another HEAD and no GET."""
    assert world.run(Fault(kind, where="HEAD")).retries == 1
    assert world.is_exact()
    assert sum(count for request, count in world.market.requests.items() if request.startswith("HEAD")) == 2
    assert world.market.pages["1"] == 1


@pytest.mark.parametrize("where", ["HEAD", "2"])
@pytest.mark.parametrize("kind", ["Expires ahead", "clock behind"])
def test_expires_that_cannot_be_freezes_nothing(world: World, kind: str, where: str) -> None:
    """An `Expires` 23 hours ahead, alone or because of a wrong `Date`, does not keep the next run from asking ESI."""
    world.run(Fault(kind, where=where))
    assert world.read_snapshot().expires <= datetime.now(UTC) + MAX_AHEAD
    world.move_on()
    assert not world.run().not_modified
    assert world.is_exact()


def test_last_modified_that_cannot_be_is_not_stored(world: World) -> None:
    """A `Last-Modified` 23 hours ahead in every response fails the run, which names it and stores nothing."""
    world.fill()
    before = world.items()
    world.move_on()
    with pytest.raises(TransientError, match="Last-Modified is .*, expected at most 15 minutes after .*; retrying"):
        world.run(Fault("Last-Modified ahead", times=99))
    assert world.items() == before


HOURS = timedelta(hours=23)
FROZEN: dict[str, Callable[[TableSnapshot], dict[str, Any]]] = {
    "expires far ahead": lambda _stood: {"expires": datetime.now(UTC) + HOURS, "written_at": datetime.now(UTC)},
    "expires that was far ahead": lambda _stood: {
        "expires": datetime.now(UTC) + timedelta(minutes=5),
        "written_at": datetime.now(UTC) - HOURS,
    },
    "expires and written_at far ahead": lambda _stood: {
        "expires": datetime.now(UTC) + HOURS,
        "written_at": datetime.now(UTC) + HOURS,
    },
    "last_modified far ahead": lambda stored: {"last_modified": stored.last_modified + HOURS},
    "all of them": lambda stored: {
        "last_modified": stored.last_modified + HOURS,
        "expires": datetime.now(UTC) + HOURS,
        "written_at": datetime.now(UTC) + HOURS,
    },
}


def with_price(stored: TableSnapshot, price: Price) -> Parameters:
    """Return a snapshot's parameters, with another price."""
    return msgspec.structs.replace(stored.parameters, price=price)


@pytest.mark.parametrize(("state", "price"), [("complete", "min"), ("writing", "max")])
@pytest.mark.parametrize("name", FROZEN)
def test_stored_dates_that_cannot_be_freeze_nothing(world: World, name: str, state: str, price: Any) -> None:
    """The next run replaces a `#snapshot` of an earlier version whose dates are hours ahead."""
    world.fill()
    stored = world.read_snapshot()
    world.put(
        msgspec.structs.replace(
            stored, state=state, parameters=with_price(stored, price), **FROZEN[name](stored)
        ).to_item()
    )
    world.move_on()
    assert not world.run().not_modified
    assert world.is_exact()
    assert world.run().not_modified


def test_stored_dates_that_can_be_are_believed(world: World) -> None:
    """Before an `Expires` a few minutes ahead no request is sent, and no older snapshot replaces a newer one."""
    world.fill()
    soon = {"expires": datetime.now(UTC) + timedelta(minutes=5), "written_at": datetime.now(UTC)}
    world.put(msgspec.structs.replace(world.read_snapshot(), **soon).to_item())
    assert world.run().not_modified
    assert not world.market.requests
    ahead = world.read_snapshot().last_modified + timedelta(minutes=10)
    stored = world.read_snapshot()
    world.put(msgspec.structs.replace(stored, last_modified=ahead, parameters=with_price(stored, "max")).to_item())
    with pytest.raises(TransientError, match="older than the table's"):
        world.run()


@pytest.mark.parametrize("kind", ["500", "reset", "stale", "broken gzip", "408", "error as 200"])
def test_what_does_not_pass_is_given_up(world: World, kind: str) -> None:
    """After five retries the run fails and names the page, and the table is as it was."""
    world.fill()
    before = world.items()
    world.move_on()
    with pytest.raises(TransientError, match=r"page 2 of region \d+"):
        world.run(Fault(kind, where="2", times=99))
    assert world.market.pages["2"] == 6
    assert world.items() == before


@pytest.mark.parametrize("kind", ["twice on a page", "twice on two pages", "clock ahead", "clock behind", "NaN"])
def test_odd_orders_do_no_harm(world: World, kind: str) -> None:
    """Orders that appear twice count once, a wrong clock does no harm, and an invalid price is undecodable."""
    world.run(Fault(kind, where="2"))
    assert world.is_exact()


def test_404_within_the_pages_asks_whether_the_snapshot_has_moved_on(world: World) -> None:
    """If the last page is gone, the run checks the snapshot; here it has become smaller, so the run starts over."""
    market = world.market

    def count_pages(index: int) -> int:
        return len(market.prepare(REGION, index).result().pages)

    while count_pages(market.index) <= count_pages(market.index + 1):
        world.move_on()
    world.run(Fault("moves on", where=str(count_pages(market.index))), fetch_concurrency=1)
    assert world.is_exact()
    assert market.requests["HEAD 200"] == 2 + market.requests["GET 404"] > 2


def test_other_number_of_pages_starts_over(world: World) -> None:
    """A page with a larger page count than HEAD's makes the run start over."""
    world.run(Fault("other X-Pages", where="2"))
    assert world.is_exact()
    assert world.market.requests["HEAD 200"] == 2


def test_snapshot_that_moves_on_starts_the_run_over(world: World) -> None:
    """If the snapshot moves on between two pages, the run starts over with the next one, and nothing is mixed."""
    summary = world.run(Fault("moves on", where="2"), fetch_concurrency=1)
    assert world.is_exact()
    assert summary.last_modified.timestamp() == world.market.index * world.market.every
    assert world.market.requests["HEAD 200"] == 2


def test_snapshot_that_always_moves_on_fails(world: World) -> None:
    """After three snapshots that moved on the run fails and stores nothing."""
    with pytest.raises(TransientError, match="3 snapshots moved on while their pages were fetched"):
        world.run(Fault("moves on", where="2", times=99), fetch_concurrency=1)
    assert world.market.requests["HEAD 200"] == 3
    assert not world.items()


def test_old_offer_is_not_stored_over_a_newer_one(world: World) -> None:
    """If a cache keeps offering an older snapshot than the table's, the run retries, then fails."""
    world.fill()
    before = world.items()
    with pytest.raises(TransientError, match="older than the table's .*; to store it anyway, run with force"):
        world.run(Fault("stale", times=99), price="max")
    assert world.items() == before
    assert world.market.requests["HEAD 200"] == 6


def test_limit_that_lasts_longer_than_a_run_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If ESI demands a pause longer than a run may last, the run fails at once and says so."""
    monkeypatch.setattr("tasks.esi.client.RUN_SECONDS", 60.0)
    limit = {"Retry-After": "3600"}
    monkeypatch.setitem(faults.REPLIES, "429", lambda _market, _reply: refuse(429, "planned", limit))
    started = time.monotonic()
    with pytest.raises((RefusedError, RateLimitedError), match="ESI requires a pause of 3[56]\\d\\d s more"):
        world.run(Fault("429", where="2"))
    assert time.monotonic() - started < 10


def test_limit_pauses_all_pages(world: World, monkeypatch: pytest.MonkeyPatch, response_times: list[float]) -> None:
    """After a 420, no request is sent until the second that ESI named."""
    limit = {"X-Esi-Error-Limit-Reset": "2"}
    monkeypatch.setitem(faults.REPLIES, "420", lambda _market, _reply: refuse(420, "planned", limit))
    summary = world.run(Fault("420", where="1"), fetch_concurrency=1)
    limited = next(-at for at in response_times if at < 0)
    assert min(at for at in response_times if at > limited) - limited > 1.9
    assert 1.9 < summary.waiting_seconds < 4
    assert world.is_exact()


def test_lost_answer_of_the_prefect_server_does_not_lose_the_summary(world: World, api: Api) -> None:
    """If Prefect's server recorded a run's end but could not confirm it in time, the caller still gets the summary."""
    plan = Plan([Fault("lost", where="COMPLETED")])
    with serve_forgetful(api.url, plan) as url, temporary_settings(updates={PREFECT_API_URL: url}):
        summary = world.run()
    assert plan.injected["lost"] == 1
    assert summary.written == summary.records
    assert world.is_exact()
