"""What a run of a declared source does if the API misbehaves: the faults of the market's tests, by declaration."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.market.market import refuse
from tasks.esi.errors import RefusedError, TransientError
from tests.support.chaos.market import SmallMarket
from tests.support.chaos.play import FIRST_INDEX, hurry
from tests.support.faults import market as faults
from tests.support.faults.declared import DeclaredWorld
from tests.support.faults.plan import Fault
from tests.support.worlds import Clock

pytestmark = pytest.mark.usefixtures("store_url", "api")

PASSING = [
    *("204", "304", "408", "420", "421", "425", "429", "429 with a date"),
    *("500", "501", "502", "503", "504", "520", "error as 200", "Last-Modified ahead", "no headers"),
    *("garbled X-Pages", "X-Pages of a million", "no Last-Modified", "no X-Pages"),
    *("reset", "reset in the body", "closed", "truncated", "stalled", "long Content-Length"),
    *("broken gzip", "no gzip", "bomb", "HTML", "stale", "NaN"),
]
HARMLESS = ["twice on a page", "twice on two pages", "clock ahead", "clock behind", "Expires ahead"]
FINAL = {
    "400": r'page 2 of .*/orders: 127.0.0.1 answered 400 .*: "planned", though the source has \d+ pages of the same',
    "404": r'page 2 of .*/orders: 127.0.0.1 answered 404 .*: "planned", though the source has \d+ pages of the same',
    "403": 'page 2 of .*/orders: 127.0.0.1 answered 403 Forbidden: "planned"; not retried',
    "405": 'page 2 of .*/orders: 127.0.0.1 answered 405 Method Not Allowed: "planned"; not retried',
    "redirect": "page 2 .* 302 Found.*, to 'http://127.0.0.2:1/': redirects are not followed, give that as url",
    "an object": "page 2 of .*/orders: Expected `array`, got `object`.*; nothing was stored",
    "missing field": "page 2 of .*/orders: Object missing required field `price`",
}
AT_HEAD = ["404", "503", "no X-Pages"]
ELSEWHERE = {"moves on", "other X-Pages", "short Content-Length", "negative price"}  # which is no fault here


@pytest.fixture
def world(table_name: str, dynamodb: DynamoDBClient) -> Iterator[DeclaredWorld]:
    """Yield a small market of five pages, and a table that does not exist yet."""
    with hurry():
        market = SmallMarket(1, Clock(FIRST_INDEX * 300.0 + 60))
        with DeclaredWorld.open(market, table_name, dynamodb) as opened:
            yield opened
        market.close()


def test_each_fault_of_the_market_is_here() -> None:
    """Each kind of fault has a test in this file."""
    assert {*PASSING, *HARMLESS, *FINAL, *AT_HEAD, *ELSEWHERE} == set(faults.KINDS)


@pytest.mark.parametrize("kinds", [PASSING[n : n + 5] for n in range(0, len(PASSING), 5)], ids=", ".join)
def test_transient_failures_are_retried(world: DeclaredWorld, kinds: list[str]) -> None:
    """Transiently failing pages are fetched again, each once, and the table is that of the market's own flow."""
    summary = world.run(*(Fault(kind, where=str(page)) for page, kind in enumerate(kinds, 1)))
    assert world.is_exact()
    assert (summary.retries, summary.pages_retried) == (len(kinds), len(kinds))
    assert world.market.pages == {str(page): 1 + (page <= len(kinds)) for page in range(1, summary.pages + 1)}


def test_odd_answers_do_no_harm(world: DeclaredWorld) -> None:
    """Items that appear twice count once, and a wrong clock or `Expires` does no harm."""
    summary = world.run(*(Fault(kind, where=str(1 + number % 3)) for number, kind in enumerate(HARMLESS[:3])))
    assert world.is_exact()
    assert summary.retries == 0
    world.move_on()
    world.run(Fault("clock behind", where="2"), Fault("Expires ahead", where="HEAD"), Fault("short Content-Length"))
    assert world.is_exact()
    assert world.read_snapshot().expires <= datetime.now(UTC) + timedelta(seconds=900)


@pytest.mark.parametrize("kind", FINAL)
def test_what_will_not_pass_fails_at_once(world: DeclaredWorld, kind: str) -> None:
    """A refused page is not fetched again; the message says which page and why, and nothing is stored."""
    world.fill()
    before = world.items()
    world.move_on()
    with pytest.raises(RefusedError, match=FINAL[kind]):
        world.run(Fault(kind, where="2", times=9))
    assert world.market.pages["2"] == 1
    assert world.items() == before


@pytest.mark.parametrize("kind", ["no X-Pages", "reset"])
def test_what_does_not_pass_is_given_up(world: DeclaredWorld, kind: str) -> None:
    """After five retries the run fails and names the page, and the table is as it was; so if a count is missing."""
    world.fill()
    before = world.items()
    world.move_on()
    with pytest.raises(TransientError, match="page 2 of .*/orders"):
        world.run(Fault(kind, where="2", times=99))
    assert world.market.pages["2"] == 6
    assert world.items() == before


@pytest.mark.parametrize("kind", AT_HEAD)
def test_head_that_fails_gives_way_to_get(world: DeclaredWorld, kind: str) -> None:
    """If HEAD never works, GET of the first page replaces it, and not modified costs one."""
    world.run(Fault(kind, where="HEAD", times=99))
    assert world.is_exact()
    assert world.run(Fault(kind, where="HEAD", times=99)).not_modified
    assert world.market.pages == {"1": 1}


def test_count_that_is_always_missing_fails(world: DeclaredWorld) -> None:
    """Without a count in any response the run fails and stores nothing."""
    with pytest.raises(TransientError, match="X-Pages is '', expected 1 to 10,000; nothing was stored"):
        world.run(Fault("no X-Pages", times=99))
    assert not world.items()


def test_snapshot_that_moves_on_starts_the_run_over(world: DeclaredWorld) -> None:
    """If the snapshot moves on between two pages, or a page has another count, all pages are fetched again."""
    summary = world.run(Fault("moves on", where="2"), Fault("other X-Pages", where="2"), fetch_concurrency=1)
    assert world.is_exact()
    assert summary.last_modified.timestamp() == world.market.index * world.market.every
    assert world.market.requests["HEAD 200"] == 3


@pytest.mark.parametrize("kind", ["moves on", "other X-Pages"])
def test_snapshot_that_always_moves_on_fails(world: DeclaredWorld, kind: str) -> None:
    """After three snapshots that moved on, or counts that changed, the run fails and stores nothing."""
    with pytest.raises(TransientError, match="3 snapshots moved on while their pages were fetched"):
        world.run(Fault(kind, where="2", times=99), fetch_concurrency=1)
    assert world.market.requests["HEAD 200"] == 3
    assert not world.items()


def test_overload_pauses_all_pages(
    world: DeclaredWorld, monkeypatch: pytest.MonkeyPatch, response_times: list[float]
) -> None:
    """After a 503 with `Retry-After`, no request is sent until then."""
    monkeypatch.setitem(faults.REPLIES, "503", lambda _market, _reply: refuse(503, "planned", {"Retry-After": "1"}))
    world.run(Fault("503", where="1"), fetch_concurrency=1)
    overloaded = next(-at for at in response_times if at < 0)
    assert min(at for at in response_times if at > overloaded) - overloaded > 0.9
    assert world.is_exact()
