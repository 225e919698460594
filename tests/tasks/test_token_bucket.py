"""The tokens that all workers share: a limit of a real Prefect server, and the stand-in that bans as ESI does."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from deployments.local.api import Api
from deployments.local.environment import CHECKOUT
from deployments.local.market.market import TOKENS, Market
from deployments.local.market.server import serve
from flows.market_data import market_data
from tasks import token_bucket
from tasks.esi import Esi, RateLimitedError
from tasks.token_bucket import Allowance, TokenBucket, create_limit
from tests.conftest import Clock
from tests.flows.test_sight import ask

REGION_ID, VENAL = 19_000_002, 10_000_015


@pytest.fixture
def limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The limit, made for one test, under a name of its own."""
    name = f"esi-{time.monotonic_ns()}"
    monkeypatch.setattr(token_bucket, "LIMIT", name)
    create_limit()
    yield
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(name)


def read_taken() -> int:
    """Gives how many slots of the limit are taken now."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(token_bucket.LIMIT).active_slots


def set_taken(slots: int) -> None:
    """Has so many slots of the limit taken."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(token_bucket.LIMIT, GlobalConcurrencyLimitUpdate(active_slots=slots))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is taken from the limit, helping by helping."""
    helpings: list[int] = []
    take = TokenBucket._take  # noqa: SLF001 (what Prefect is asked for is what is counted)

    def note(self: TokenBucket, tokens: int) -> float:
        helpings.append(tokens)
        return take(self, tokens)

    monkeypatch.setattr(TokenBucket, "_take", note)
    return helpings


@pytest.mark.usefixtures("limit")
def test_limit_is_as_large_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit has ESI's tokens, given back within ESI's time; a setting makes it smaller, and so it stays."""
    for setting, tokens in (("", 12_000), ("6000", 6_000), ("", 6_000)):
        monkeypatch.setenv("ESI_TOKENS", setting)
        assert create_limit() == tokens
        with get_client(sync_client=True) as client:
            made = client.read_global_concurrency_limit_by_name(token_bucket.LIMIT)
        assert made.limit == tokens
        assert made.slot_decay_per_second == pytest.approx(tokens / 900)


@pytest.mark.parametrize("given", ["0", "many", "-5", "1e3", "12001"])
def test_wrong_number_of_tokens_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """A setting that is no number of tokens is refused with what is allowed."""
    monkeypatch.setenv("ESI_TOKENS", given)
    with pytest.raises(ValueError, match="ESI_TOKENS is .*: give 1600 to 12000 tokens"):
        create_limit()


@pytest.mark.usefixtures("served", "store_url", "limit")
def test_run_takes_what_it_spends_in_few_helpings(market: Market, table_name: str, asked: list[int]) -> None:
    """A run takes two tokens a request, in a helping or two, not page by page."""
    market_data(VENAL, table_name)
    assert sum(asked) == 2 * sum(market.requests.values()) == 16
    assert len(asked) <= 1 + 7
    assert read_taken() <= 16


@pytest.mark.usefixtures("served", "store_url", "limit")
def test_chunk_s_pages_are_one_helping(market: Market, asked: list[int]) -> None:
    """Sixty pages that are known ahead are one helping."""
    with TokenBucket() as tokens, Esi.from_environment(10, tokens) as esi:
        esi.expect(60)
        for future in [esi.submit(esi.get, REGION_ID, 1) for _page in range(60)]:
            future.result()
    assert asked == [120]
    assert market.requests == {"GET 200": 60}


@pytest.mark.usefixtures("served", "api")
def test_without_the_limit_nothing_is_counted(market: Market) -> None:
    """A server that has no such limit is asked once a run, and nothing waits."""
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(REGION_ID)
        assert not tokens._counts  # noqa: SLF001
        esi.head(REGION_ID)
    assert market.requests == {"HEAD 200": 2}


@pytest.mark.usefixtures("served", "limit")
def test_full_limit_waits_for_slots(market: Market) -> None:
    """With all slots taken a request waits until one has decayed, and the wait is counted as such."""
    set_taken(12_030)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(REGION_ID)
        assert 0.1 < esi.waits.seconds < 3
    assert market.requests == {"HEAD 200": 1}


@pytest.mark.usefixtures("served", "limit")
def test_limit_follows_what_esi_says(market: Market, clock: Clock) -> None:
    """When another program has used most tokens, the shared limit is brought to what ESI says is left."""
    market.tokens.add(clock.now, 10_500)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(REGION_ID)
        assert read_taken() < 100
        esi.head(REGION_ID)
        assert 10_500 < read_taken() <= 10_510 + Allowance().margin


@pytest.mark.usefixtures("served", "limit")
def test_limit_becomes_esi_s_if_that_is_smaller(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should ESI give fewer tokens, or another time for them, the limit is brought to that, and helpings with it."""
    monkeypatch.setattr("deployments.local.market.market.TOKENS", 1200)
    monkeypatch.setattr("deployments.local.market.market.WINDOW_SECONDS", 120)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(REGION_ID)
        esi.head(REGION_ID)
    with get_client(sync_client=True) as client:
        now = client.read_global_concurrency_limit_by_name(token_bucket.LIMIT)
    assert (now.limit, now.slot_decay_per_second) == (1200, 10.0)
    assert market.requests == {"HEAD 200": 2}
    assert [Allowance(left, 1200).helping for left in (1200, 200)] == [12, 2]


@pytest.mark.usefixtures("served", "limit")
def test_one_worker_s_ban_makes_all_hold_still(market: Market) -> None:
    """A ban that one worker gets makes another, which has tokens in hand, ask nothing until it is over."""
    with TokenBucket() as one, TokenBucket() as other, Esi.from_environment(1, other) as second:
        second.expect(60)
        second.head(REGION_ID)
        one.hold_all(2.0)
        asked_before = sum(market.requests.values())
        time.sleep(token_bucket.LOOK_SECONDS)
        begun = time.monotonic()
        second.head(REGION_ID)
        assert 0.5 < time.monotonic() - begun < 4
        assert sum(market.requests.values()) == asked_before + 1


@pytest.mark.usefixtures("served", "limit")
def test_ban_is_told_to_all(market: Market, clock: Clock) -> None:
    """Who is answered 429 passes on how long ESI says."""
    market.enforce_limit = True
    market.tokens.add(clock.now - 890, TOKENS)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        with pytest.raises(RateLimitedError, match="nothing is asked for 10 s"):
            esi.head(REGION_ID)
        with TokenBucket() as other:
            assert 3 < other.spend() <= 10
        Esi._hold_until.clear()  # noqa: SLF001


SPEED, WORKERS = 5.0, 4


@pytest.mark.outage
def test_four_workers_never_overdraw(own_api: Api) -> None:
    """Four processes that ask as fast as they may are never refused, and use at least 85 % of what is allowed.

    The market's time, and the limit's, is five times as fast, so that each wait weighs five times as much. In the last
    fifteen minutes others have used two thirds of the tokens, evenly.
    """
    begun = time.time()
    market = Market(clock=lambda: begun + (time.time() - begun) * SPEED, enforce_limit=True, every=10**9)
    for age_seconds in range(899, 0, -15):
        market.tokens.add(begun - age_seconds, 133)
    httpx.delete(f"{own_api.url}/v2/concurrency_limits/{token_bucket.LIMIT}", trust_env=False)  # another test's
    limit = {"name": token_bucket.LIMIT, "limit": TOKENS, "slot_decay_per_second": SPEED * TOKENS / 900}
    ask(own_api, "/v2/concurrency_limits/", limit)
    with serve(market) as url:
        command = [sys.executable, "-m", "tests.tasks.spend_tokens", "60"]
        environ = os.environ | {"ESI_URL": url}
        workers = [subprocess.Popen(command, cwd=CHECKOUT, env=environ) for _ in range(WORKERS)]
        assert [worker.wait() for worker in workers] == [0] * WORKERS
        used = market.tokens.used
    assert set(market.requests) <= {"HEAD 200", "GET 200"}
    assert 0.85 * TOKENS < used <= TOKENS
