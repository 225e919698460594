"""The tokens that all workers share: a limit of a real Prefect server, and the stand-in that bans as ESI does."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from deployments.local.environment import CHECKOUT
from deployments.local.market.market import TOKENS, Market
from deployments.local.market.server import serve
from flows.market_data import market_data
from tasks.esi import shared_limit, token_bucket
from tasks.esi.client import Esi
from tasks.esi.errors import RateLimitedError, RefusedError
from tasks.esi.markets import find_market
from tasks.esi.pause import find_pause
from tasks.esi.shared_limit import create_limit, retry_seconds
from tasks.esi.token_bucket import Allowance, TokenBucket
from tests.support.api import Api
from tests.support.faults.server import serve_changed
from tests.support.runs import ask
from tests.support.worlds import Clock

REGION_ID, VENAL = 19_000_002, 10_000_015


@pytest.fixture
def limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The limit, made for one test, under a name of its own."""
    name = f"esi-{time.monotonic_ns()}"
    monkeypatch.setattr(shared_limit, "LIMIT", name)
    create_limit()
    yield
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(name)


def read_taken() -> int:
    """Return how many slots of the limit are taken now."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(shared_limit.LIMIT).active_slots


def set_taken(slots: int) -> None:
    """Have so many slots of the limit taken."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(shared_limit.LIMIT, GlobalConcurrencyLimitUpdate(active_slots=slots))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is taken from the limit, batch by batch."""
    batches: list[int] = []
    take = TokenBucket._reserve  # noqa: SLF001 (what Prefect is asked for is what is counted)

    def note(self: TokenBucket, tokens: int) -> float:
        batches.append(tokens)
        return take(self, tokens)

    monkeypatch.setattr(TokenBucket, "_reserve", note)
    return batches


@pytest.mark.usefixtures("limit")
def test_limit_is_as_large_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit has ESI's tokens, given back within ESI's time; a setting makes it smaller, and so it stays."""
    for setting, tokens in (("", 12_000), ("6000", 6_000), ("", 6_000)):
        monkeypatch.setenv("ESI_TOKENS", setting)
        assert create_limit() == tokens
        with get_client(sync_client=True) as client:
            made = client.read_global_concurrency_limit_by_name(shared_limit.LIMIT)
        assert made.limit == tokens
        assert made.slot_decay_per_second == pytest.approx(tokens / 900)


@pytest.mark.parametrize("given", ["0", "many", "-5", "1e3", "12001"])
def test_wrong_number_of_tokens_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """A setting that is no number of tokens is refused with what is allowed."""
    monkeypatch.setenv("ESI_TOKENS", given)
    with pytest.raises(ValueError, match="ESI_TOKENS is .*: give 1600 to 12000 tokens"):
        create_limit()


@pytest.mark.usefixtures("served", "store_url", "limit")
def test_run_takes_what_it_spends_in_few_batches(market: Market, table_name: str, asked: list[int]) -> None:
    """A run takes two tokens a request, in a helping or two, not page by page."""
    market_data(VENAL, table_name)
    assert sum(asked) == 2 * sum(market.requests.values()) == 16
    assert len(asked) <= 1 + 7
    assert read_taken() <= 16


@pytest.mark.usefixtures("served", "store_url", "limit")
def test_pages_of_a_chunk_are_one_batch(market: Market, asked: list[int]) -> None:
    """Sixty pages that are known ahead are one batch."""
    with TokenBucket() as tokens, Esi.from_environment(10, tokens) as esi:
        esi.expect(60)
        for future in [esi.submit(esi.get, find_market(REGION_ID), 1) for _page in range(60)]:
            future.result()
    assert asked == [120]
    assert market.requests == {"GET 200": 60}


@pytest.mark.usefixtures("served", "api")
def test_without_the_limit_nothing_is_counted(market: Market) -> None:
    """A server that has no such limit is asked once a run, and nothing waits."""
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(find_market(REGION_ID))
        assert not tokens._limit._counts  # noqa: SLF001
        esi.head(find_market(REGION_ID))
    assert market.requests == {"HEAD 200": 2}


@pytest.mark.usefixtures("served", "limit")
def test_full_limit_waits_for_slots(market: Market) -> None:
    """With all slots taken a request waits until one has decayed, and the wait is counted as such."""
    set_taken(12_030)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(find_market(REGION_ID))
        assert 0.1 < esi.waits.seconds < 3
    assert market.requests == {"HEAD 200": 1}


@pytest.mark.usefixtures("served", "limit")
def test_limit_follows_what_esi_says(market: Market, clock: Clock) -> None:
    """When another program has used most tokens, the shared limit is brought to what ESI says is left."""
    market.tokens.add(clock.now, 10_500)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(find_market(REGION_ID))
        assert read_taken() < 100
        esi.head(find_market(REGION_ID))
        assert 10_500 < read_taken() <= 10_510 + Allowance().margin


@pytest.mark.usefixtures("served", "limit")
def test_limit_becomes_esi_s_if_that_is_smaller(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should ESI give fewer tokens, or another time for them, the limit is brought to that, and batches with it."""
    monkeypatch.setattr("deployments.local.market.market.TOKENS", 1200)
    monkeypatch.setattr("deployments.local.market.market.WINDOW_SECONDS", 120)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(find_market(REGION_ID))
        esi.head(find_market(REGION_ID))
    with get_client(sync_client=True) as client:
        now = client.read_global_concurrency_limit_by_name(shared_limit.LIMIT)
    assert (now.limit, now.slot_decay_per_second) == (1200, 10.0)
    assert market.requests == {"HEAD 200": 2}
    assert [Allowance(left, 1200).batch for left in (1200, 200)] == [12, 2]


@pytest.mark.usefixtures("served", "limit")
def test_one_worker_s_ban_makes_all_hold_still(market: Market) -> None:
    """A ban that one worker gets makes another, which has tokens in hand, ask nothing until it is over."""
    with TokenBucket() as one, TokenBucket() as other, Esi.from_environment(1, other) as second:
        second.expect(60)
        second.head(find_market(REGION_ID))
        one.pause_all(2.0)
        asked_before = sum(market.requests.values())
        time.sleep(token_bucket.LOOK_SECONDS)
        begun = time.monotonic()
        second.head(find_market(REGION_ID))
        assert 0.5 < time.monotonic() - begun < 4
        assert sum(market.requests.values()) == asked_before + 1


@pytest.mark.usefixtures("served", "limit")
def test_ban_is_told_to_all(market: Market, clock: Clock) -> None:
    """Who is answered 429 passes on how long ESI says."""
    market.enforce_limit = True
    market.tokens.add(clock.now - 890, TOKENS)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        with pytest.raises(RateLimitedError, match="pausing all requests for 10 s"):
            esi.head(find_market(REGION_ID))
        with TokenBucket() as other:
            assert 3 < other.spend() <= 10
        find_pause(esi.url).end()


def change_limit(**values: float) -> None:
    """Change the limit, as an operator does."""
    with get_client(sync_client=True) as client:
        update = GlobalConcurrencyLimitUpdate.model_validate(values)
        client.update_global_concurrency_limit(shared_limit.LIMIT, update)


def spend_within(tokens: TokenBucket, seconds: float, requests: int = 1) -> float:
    """Spend requests' tokens, waiting as told, and return the seconds that this took; fail if the waits are so many.

    How long a busy machine takes to wake up from them is not the limit's affair.
    """
    begun, waited = time.monotonic(), 0.0
    for _ in range(requests):
        while wait_seconds := tokens.spend():
            waited += wait_seconds
            assert waited < seconds
            time.sleep(wait_seconds)
    return time.monotonic() - begun


@contextmanager
def serve_undecayed(api: Api) -> Iterator[None]:
    """Have the server say of the limit how many slots were taken at its last change, as Prefect Cloud does."""
    written = [read_taken()]

    def change(request: str, answer: httpx.Response) -> httpx.Response:
        if request == f"GET /v2/concurrency_limits/{shared_limit.LIMIT}":
            return httpx.Response(200, json=answer.json() | {"active_slots": written[-1]})
        if "/v2/concurrency_limits" in request:
            found = httpx.get(f"{api.url}/v2/concurrency_limits/{shared_limit.LIMIT}", trust_env=False)
            written.append(found.json()["active_slots"])
        return answer

    with serve_changed(api.url, change):
        yield


@pytest.mark.usefixtures("limit")
def test_slots_that_are_not_said_to_decay_come_free(api: Api) -> None:
    """Where a server says how many slots were taken last, a run waits as long as they take to decay, and goes on."""
    begun = time.monotonic()
    set_taken(12_030)
    with serve_undecayed(api), TokenBucket() as tokens:
        assert spend_within(tokens, 4)
        tokens.expect(5)
        spend_within(tokens, 4, requests=5)
    assert time.monotonic() - begun > (30 + 6 * 2) / (12_000 / 900) - 0.2  # until as many slots have come free


@pytest.mark.usefixtures("limit")
def test_hold_ends_where_slots_are_not_said_to_decay(api: Api) -> None:
    """Where a server says how many slots were taken last, all hold still as long as they are told, and no longer."""
    change_limit(slot_decay_per_second=1000)
    with serve_undecayed(api), TokenBucket() as one:
        one.pause_all(1.5)
        with TokenBucket() as other:
            assert spend_within(other, 4) > 1.5


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize(("slots", "requests"), [(2, 15), (50, 60), (119, 120)])
def test_small_limit_gives_what_it_has(slots: int, requests: int) -> None:
    """A limit that is smaller than a chunk's tokens is used in small batches; it is never overdrawn."""
    change_limit(limit=slots, slot_decay_per_second=100)
    with TokenBucket() as tokens:
        tokens.expect(requests)
        tokens.note_answer(httpx.Headers({"X-Ratelimit-Limit": "12000/15m", "X-Ratelimit-Remaining": "11000"}))
        assert spend_within(tokens, 15, requests) > (2 * requests - slots) / 100 - 0.1


@pytest.mark.usefixtures("served", "limit")
@pytest.mark.parametrize("slots", [0, 1])
def test_limit_below_one_request_is_refused(market: Market, slots: int) -> None:
    """A limit that no request can be taken from fails the run at once, with what to do."""
    change_limit(limit=slots)
    allowed = f"has {slots} slots, a request takes 2: give it 1,600 to 12,000, or deactivate it"
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi, pytest.raises(RefusedError, match=allowed):
        esi.head(find_market(REGION_ID))
    assert not market.requests


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("change", [{"active": False}, {"slot_decay_per_second": 0}])
def test_limit_that_is_none_is_not_waited_for(change: dict[str, float]) -> None:
    """A limit that is switched off, or whose slots never come free, counts nothing."""
    set_taken(12_000)
    change_limit(**change)
    with TokenBucket() as tokens:
        assert tokens.spend() == 0


@contextmanager
def serve_refusing(api: Api, times: int) -> Iterator[list[str]]:
    """Have the server refuse slots so many times, though there are some; yield the requests for them."""
    asked: list[str] = []

    def change(request: str, answer: httpx.Response) -> httpx.Response:
        if request != "POST /v2/concurrency_limits/increment":
            return answer
        asked.append(request)
        return httpx.Response(423, headers={"Retry-After": "0.4"}) if len(asked) <= times else answer

    with serve_changed(api.url, change):
        yield asked


@pytest.mark.usefixtures("limit")
def test_refusal_is_waited_for_as_long_as_it_says(api: Api) -> None:
    """A refusal's `Retry-After` is waited for, and then slots are asked for again."""
    with serve_refusing(api, times=3) as asked, TokenBucket() as tokens:
        assert spend_within(tokens, 6) > 3 * 0.4
    assert len(asked) == 4


@pytest.mark.usefixtures("limit")
def test_limit_that_always_refuses_is_left(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit that refuses again and again though slots are free does not stop the run, which says so."""
    monkeypatch.setattr(token_bucket, "PATIENCE_SECONDS", 1.0)
    with serve_refusing(api, times=10_000) as asked, TokenBucket() as tokens:
        spend_within(tokens, 10, requests=200)
    assert len(asked) == token_bucket.PATIENCE
    assert re.search(
        r"has refused 5 times in \d+ s although slots were free: this run no longer counts ESI's tokens", caplog.text
    )


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("8.5", 8.5), ("3600", 60), ("inf", 0.2), ("nan", 0.2), ("-1", 0.2), ("soon", 0.2), ("", 0.2)],
)
def test_retry_after_is_bounded(given: str, seconds: float) -> None:
    """What a refusal says to wait is believed within bounds."""
    assert retry_seconds(httpx.Response(423, headers={"Retry-After": given})) == seconds


@pytest.mark.usefixtures("limit")
def test_limit_deleted_meanwhile_is_none(api: Api) -> None:
    """A limit that is deleted while a run looks at it, and while it waits, counts nothing any more."""
    set_taken(12_800)

    reads = count()

    def delete(request: str, answer: httpx.Response) -> httpx.Response:
        if request.startswith("GET /v2/concurrency_limits/") and next(reads) == 1:  # not the one at the run's begin
            httpx.delete(f"{api.url}/v2/concurrency_limits/{shared_limit.LIMIT}", trust_env=False)
        return answer

    with TokenBucket() as waiting:
        assert waiting.spend() > 1
        with serve_changed(api.url, delete), TokenBucket() as holding:
            holding.pause_all(10)
        spend_within(waiting, 7)
    create_limit()


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
    httpx.delete(f"{own_api.url}/v2/concurrency_limits/{shared_limit.LIMIT}", trust_env=False)  # another test's
    limit = {"name": shared_limit.LIMIT, "limit": TOKENS, "slot_decay_per_second": SPEED * TOKENS / 900}
    ask(own_api, "/v2/concurrency_limits/", limit)
    with serve(market) as url:
        command = [sys.executable, "-m", "tests.tasks.esi.spend_tokens", "60"]
        environ = os.environ | {"ESI_URL": url}
        workers = [subprocess.Popen(command, cwd=CHECKOUT, env=environ) for _ in range(WORKERS)]
        assert [worker.wait() for worker in workers] == [0] * WORKERS
        used = market.tokens.used
    assert set(market.requests) <= {"HEAD 200", "GET 200"}
    assert 0.85 * TOKENS < used <= TOKENS
