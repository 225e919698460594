"""The tokens that all workers share: a limit on a real Prefect server, and a stand-in that bans as ESI does."""

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
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse

from deployments.local.environment import CHECKOUT
from deployments.local.market.market import TOKENS
from flows.market_data import market_data
from tasks.esi import shared_limit, token_bucket
from tasks.esi.client import Esi
from tasks.esi.errors import RateLimitedError, RefusedError
from tasks.esi.markets import find_market
from tasks.esi.pause import find_pause
from tasks.esi.shared_limit import create_limit, retry_seconds
from tasks.esi.token_bucket import Allowance, TokenBucket
from tests.support.api import Api
from tests.support.esi import EsiMarket
from tests.support.faults.server import serve_changed
from tests.support.runs import ask
from tests.support.worlds import Clock, serve

REGION_ID, VENAL = 19_000_002, 10_000_015


@pytest.fixture
def limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Yield a limit for one test, with its own name."""
    name = f"esi-{time.monotonic_ns()}"
    monkeypatch.setattr(shared_limit, "LIMIT", name)
    create_limit()
    yield
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(name)


def read_taken() -> int:
    """Return how many of the limit's slots are taken now."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(shared_limit.LIMIT).active_slots


def set_taken(slots: int) -> None:
    """Take so many of the limit's slots."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(shared_limit.LIMIT, GlobalConcurrencyLimitUpdate(active_slots=slots))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the slots taken from the limit, batch by batch."""
    batches: list[int] = []
    take = TokenBucket._reserve  # noqa: SLF001 (counts what Prefect is asked for)

    def note(self: TokenBucket, tokens: int, limit: GlobalConcurrencyLimitResponse) -> float:
        batches.append(tokens)
        return take(self, tokens, limit)

    monkeypatch.setattr(TokenBucket, "_reserve", note)
    return batches


@pytest.mark.usefixtures("limit")
def test_limit_has_the_configured_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit has ESI's tokens, which come back within ESI's window; a setting makes it smaller for good."""
    for setting, tokens in (("", 12_000), ("6000", 6_000), ("", 6_000)):
        monkeypatch.setenv("ESI_TOKENS", setting)
        assert create_limit() == tokens
        with get_client(sync_client=True) as client:
            made = client.read_global_concurrency_limit_by_name(shared_limit.LIMIT)
        assert made.limit == tokens
        assert made.slot_decay_per_second == pytest.approx(tokens / 900)


@pytest.mark.parametrize("given", ["0", "many", "-5", "1e3", "12001"])
def test_wrong_number_of_tokens_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """A setting that is not a valid number of tokens is refused, with what is allowed."""
    monkeypatch.setenv("ESI_TOKENS", given)
    with pytest.raises(ValueError, match="ESI_TOKENS is .*: give 1600 to 12000 tokens"):
        create_limit()


@pytest.mark.usefixtures("served", "store_url", "limit")
def test_run_takes_what_it_spends_in_few_batches(market: EsiMarket, table_name: str, asked: list[int]) -> None:
    """A run takes two tokens per request, in one or two batches, not page by page."""
    market_data(VENAL, table_name)
    assert sum(asked) == 2 * sum(market.requests.values()) == 16
    assert len(asked) <= 1 + 7
    assert read_taken() <= 16


@pytest.mark.usefixtures("served", "store_url", "limit")
def test_pages_of_a_chunk_are_one_batch(market: EsiMarket, asked: list[int]) -> None:
    """Sixty announced pages are one batch."""
    with TokenBucket() as tokens, Esi.from_environment(10, tokens) as esi:
        esi.expect(60)
        for future in [esi.submit(esi.get, find_market(REGION_ID).endpoint, 1) for _page in range(60)]:
            future.result()
    assert asked == [120]
    assert market.requests == {"GET 200": 60}


@pytest.mark.usefixtures("limit")
def test_tokens_are_reserved_before_they_run_out(asked: list[int]) -> None:
    """The next batch is reserved on another thread while tokens are left, so that requests do not wait for it."""
    with TokenBucket() as tokens:
        tokens.expect(120)
        spend_within(tokens, 10, requests=59)
        tokens._ahead.result()  # noqa: SLF001 (what is under way is not waited for otherwise)
    assert asked == [120, 120]


@pytest.mark.usefixtures("served", "api")
def test_without_the_limit_nothing_is_counted(market: EsiMarket) -> None:
    """Without the limit, the server is asked once per run, and nothing waits."""
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(find_market(REGION_ID).endpoint)
        assert not tokens._counts  # noqa: SLF001
        esi.head(find_market(REGION_ID).endpoint)
    assert market.requests == {"HEAD 200": 2}


@pytest.mark.usefixtures("served", "limit")
def test_full_limit_waits_for_slots(market: EsiMarket) -> None:
    """If all slots are taken, a request waits until one is free, and the wait is counted."""
    set_taken(12_030)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(find_market(REGION_ID).endpoint)
        assert 0.1 < esi.waits.seconds < 3
    assert market.requests == {"HEAD 200": 1}


@pytest.mark.usefixtures("served", "limit")
def test_limit_follows_what_esi_says(market: EsiMarket, clock: Clock) -> None:
    """If another program has used most tokens, the shared limit is set to what ESI says is left."""
    market.tokens.add(clock.now, 10_500)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(find_market(REGION_ID).endpoint)
        assert read_taken() < 100
        esi.head(find_market(REGION_ID).endpoint)
        assert 10_500 < read_taken() <= 10_510 + Allowance().margin


@pytest.mark.usefixtures("served", "limit")
def test_limit_becomes_esi_s_if_that_is_smaller(market: EsiMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    """If ESI gives fewer tokens, or another window, the limit and the batches follow."""
    monkeypatch.setattr("deployments.local.market.market.TOKENS", 1200)
    monkeypatch.setattr("deployments.local.market.market.WINDOW_SECONDS", 120)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        esi.head(find_market(REGION_ID).endpoint)
        esi.head(find_market(REGION_ID).endpoint)
    with get_client(sync_client=True) as client:
        now = client.read_global_concurrency_limit_by_name(shared_limit.LIMIT)
    assert (now.limit, now.slot_decay_per_second) == (1200, 10.0)
    assert market.requests == {"HEAD 200": 2}
    assert [Allowance(left, 1200).batch for left in (1200, 200)] == [12, 2]


@pytest.mark.usefixtures("served", "limit")
def test_ban_of_one_worker_pauses_the_others(market: EsiMarket) -> None:
    """A ban of one worker pauses another, which still has tokens, until the ban is over."""
    with TokenBucket() as one, TokenBucket() as other, Esi.from_environment(1, other) as second:
        second.expect(60)
        second.head(find_market(REGION_ID).endpoint)
        one.pause_all(2.0)
        asked_before = sum(market.requests.values())
        time.sleep(token_bucket.LOOK_SECONDS)
        started = time.monotonic()
        second.head(find_market(REGION_ID).endpoint)
        assert 0.5 < time.monotonic() - started < 4
        assert sum(market.requests.values()) == asked_before + 1


@pytest.mark.usefixtures("served", "limit")
def test_ban_pauses_all(market: EsiMarket, clock: Clock) -> None:
    """A worker that gets a 429 pauses the others for as long as ESI says."""
    market.enforce_limit = True
    market.tokens.add(clock.now - 890, TOKENS)
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi:
        with pytest.raises(RateLimitedError, match="pausing all requests for 10 s"):
            esi.head(find_market(REGION_ID).endpoint)
        with TokenBucket() as other:
            assert 3 < other.spend() <= 10
        find_pause.cache_clear()


def change_limit(**values: float) -> None:
    """Change the limit as an operator does."""
    with get_client(sync_client=True) as client:
        update = GlobalConcurrencyLimitUpdate.model_validate(values)
        client.update_global_concurrency_limit(shared_limit.LIMIT, update)


def spend_within(tokens: TokenBucket, seconds: float, requests: int = 1) -> float:
    """Spend tokens for requests, with the waits required; return the seconds taken. Fail if the waits exceed `seconds`.

    How long a busy machine takes to wake up from them does not count.
    """
    started, waited = time.monotonic(), 0.0
    for _ in range(requests):
        while wait_seconds := tokens.spend():
            waited += wait_seconds
            assert waited < seconds
            time.sleep(wait_seconds)
    return time.monotonic() - started


@contextmanager
def serve_undecayed(api: Api) -> Iterator[None]:
    """Make the server report the slots taken at the limit's last change, as Prefect Cloud does."""
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
    """If the server reports slots as of the last change, a run waits as long as they take to decay, then goes on."""
    started = time.monotonic()
    set_taken(12_030)
    with serve_undecayed(api), TokenBucket() as tokens:
        assert spend_within(tokens, 4)
        tokens.expect(5)
        spend_within(tokens, 4, requests=5)
    assert time.monotonic() - started > (30 + 6 * 2) / (12_000 / 900) - 0.2  # until as many slots have come free


@pytest.mark.usefixtures("limit")
def test_pause_ends_where_slots_are_not_said_to_decay(api: Api) -> None:
    """If the server reports slots as of the last change, a pause lasts as long as it should, and no longer."""
    change_limit(slot_decay_per_second=1000)
    with serve_undecayed(api), TokenBucket() as one:
        one.pause_all(1.5)
        with TokenBucket() as other:
            assert spend_within(other, 4) > 1.5


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize(("slots", "requests"), [(2, 15), (50, 60), (119, 120)])
def test_small_limit_gives_what_it_has(slots: int, requests: int) -> None:
    """A limit smaller than a chunk's tokens is used in small batches, and never overdrawn."""
    change_limit(limit=slots, slot_decay_per_second=100)
    with TokenBucket() as tokens:
        tokens.expect(requests)
        tokens.note_answer(httpx.Headers({"X-Ratelimit-Limit": "12000/15m", "X-Ratelimit-Remaining": "11000"}))
        assert spend_within(tokens, 15, requests) > (2 * requests - slots) / 100 - 0.1


@pytest.mark.usefixtures("served", "limit")
@pytest.mark.parametrize("slots", [0, 1])
def test_limit_below_one_request_is_refused(market: EsiMarket, slots: int) -> None:
    """A limit too small for one request fails the run at once, with what to do."""
    change_limit(limit=slots)
    allowed = f"has {slots} slots, a request takes 2: give it 1,600 to 12,000, or deactivate it"
    with TokenBucket() as tokens, Esi.from_environment(1, tokens) as esi, pytest.raises(RefusedError, match=allowed):
        esi.head(find_market(REGION_ID).endpoint)
    assert not market.requests


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("change", [{"active": False}, {"slot_decay_per_second": 0}])
def test_limit_that_is_none_is_not_waited_for(change: dict[str, float]) -> None:
    """A limit that is switched off, or whose slots never decay, is ignored."""
    set_taken(12_000)
    change_limit(**change)
    with TokenBucket() as tokens:
        assert tokens.spend() == 0


@contextmanager
def serve_refusing(api: Api, times: int) -> Iterator[list[str]]:
    """Make the server refuse slots so many times although some are free; yield the requests for them."""
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
    """After a refusal, a run waits for `Retry-After` and then asks for slots again."""
    with serve_refusing(api, times=3) as asked, TokenBucket() as tokens:
        assert spend_within(tokens, 6) > 3 * 0.4
    assert len(asked) == 4


@pytest.mark.usefixtures("limit")
def test_limit_that_always_refuses_is_left(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit that keeps refusing although slots are free does not stop the run, which logs a warning."""
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
    """A refusal's `Retry-After` is honoured within bounds."""
    assert retry_seconds(httpx.Response(423, headers={"Retry-After": given})) == seconds


@pytest.mark.usefixtures("limit")
def test_limit_deleted_meanwhile_is_none(api: Api) -> None:
    """A limit that is deleted while a run reads it, or waits for it, is ignored from then on."""
    set_taken(12_800)

    reads = count()

    def delete(request: str, answer: httpx.Response) -> httpx.Response:
        if request.startswith("GET /v2/concurrency_limits/") and next(reads) == 1:  # not the read at the run's start
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
    """Four processes at full speed are never refused, and use at least 85 % of what is allowed.

    Time runs five times as fast for the market and the limit, so that each wait weighs five times as much. In the last
    fifteen minutes others have used two thirds of the tokens, at an even rate.
    """
    started = time.time()
    market = EsiMarket(clock=lambda: started + (time.time() - started) * SPEED, enforce_limit=True, every=10**9)
    for age_seconds in range(899, 0, -15):
        market.tokens.add(started - age_seconds, 133)
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
