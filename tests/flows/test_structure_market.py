"""The flow structure-market, run for real against the stand-in's authorised route and token endpoint."""

import io
import logging
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.blocks.system import Secret
from prefect.exceptions import ParameterTypeError

from deployments.local.market.market import Reply, Request, refuse
from flows.structure_market import structure_market
from tasks.esi import credentials
from tasks.esi.credentials import load_credentials
from tasks.esi.errors import RefusedError, TransientError
from tasks.esi.sso import Credentials
from tests.support.api import Api
from tests.support.chaos.play import hurry
from tests.support.esi import REFRESH_TOKEN, TOKEN_ROUTE, EsiMarket
from tests.support.tables import expire, records, scan
from tests.support.truth import truth
from tests.support.worlds import Clock

STRUCTURE, LOCKED = 1_000_000_000_003, 1_000_000_010_001  # the first has three pages; the second allows no docking
SMALL = 1_000_000_000_001  # one page

pytestmark = pytest.mark.usefixtures("store_url", "api")


@pytest.fixture(autouse=True)
def sso(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the token endpoint to the stand-in's."""
    monkeypatch.setenv("ESI_SSO_URL", served + TOKEN_ROUTE)


def store(name: str, value: Any) -> None:
    """Create a Secret block, as the UI does."""
    Secret(value=value).save(name)


@pytest.fixture
def block() -> Iterator[str]:
    """Yield a Secret block with good credentials, for one test."""
    name = f"eve-sso-{random.getrandbits(40)}"
    store(name, {"client_id": "app", "client_secret": "s3cret-of-app", "refresh_token": REFRESH_TOKEN})
    yield name
    Secret.delete(name)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Yield everything that is logged, down to debug messages."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


def test_structure_s_table_is_exact(dynamodb: DynamoDBClient, market: EsiMarket, table_name: str, block: str) -> None:
    """The table is exactly what the structure's orders say, and a second run before `Expires` sends no request."""
    summary = structure_market(STRUCTURE, table_name, credentials=block)
    items = scan(dynamodb, table_name)
    assert records(items) == truth(market, STRUCTURE)
    assert (items["#snapshot"]["region_id"], summary.pages) == ({"N": str(STRUCTURE)}, 3)
    assert market.sso.given == 1
    market.reset_counts()
    assert structure_market(STRUCTURE, table_name, credentials=block).not_modified
    assert (market.requests, market.sso.given) == ({}, 1)


def test_token_that_ends_is_refreshed(
    dynamodb: DynamoDBClient, market: EsiMarket, clock: Clock, table_name: str, block: str
) -> None:
    """If ESI no longer accepts a token, the page is fetched again with a new one, and the run does not fail."""
    give_page = market.find_region
    expired: list[int] = []

    def end_tokens(request: Any) -> Any:
        if request.query.get("page") == "2" and not expired:
            expired.append(1)
            market.sso.expire_all()
        return give_page(request)

    market.find_region = end_tokens  # type: ignore[method-assign]
    structure_market(STRUCTURE, table_name, credentials=block)
    assert records(scan(dynamodb, table_name)) == truth(market, STRUCTURE)
    assert market.sso.given == 2
    assert market.requests["GET 401"] + market.requests["HEAD 401"] >= 1
    assert clock.now


def test_short_token_is_refreshed_before_it_ends(market: EsiMarket, table_name: str, block: str) -> None:
    """A token with under a minute left is not used for a new request."""
    market.sso.access_seconds = 30
    structure_market(STRUCTURE, table_name, credentials=block)
    assert market.sso.given == 4  # one per request
    assert "GET 401" not in market.requests


def test_new_refresh_token_is_kept(market: EsiMarket, table_name: str, block: str) -> None:
    """If EVE SSO changes the refresh token, the new one is saved to the block before the run goes on."""
    answer = market.sso.answer

    def rotate(body: bytes, now: float) -> tuple[int, bytes]:
        status, sent = answer(body, now)
        market.sso.refresh_token = "the-next-one"
        return status, sent.replace(REFRESH_TOKEN.encode(), b"the-next-one")

    market.sso.answer = rotate  # type: ignore[method-assign]
    structure_market(SMALL, table_name, credentials=block)
    assert load_credentials(block).refresh_token == "the-next-one"
    market.sso.expire_all()
    assert structure_market(SMALL, table_name, credentials=block, force=True).pages == 1


def test_new_refresh_token_is_kept_at_last(
    market: EsiMarket, table_name: str, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Prefect's server does not save the new refresh token at once, it is saved before the run succeeds."""
    answer, keep = market.sso.answer, credentials.keep_credentials
    failed: list[int] = []

    def rotate(body: bytes, now: float) -> tuple[int, bytes]:
        status, sent = answer(body, now)
        market.sso.refresh_token = "the-next-one"
        return status, sent.replace(REFRESH_TOKEN.encode(), b"the-next-one")

    def fail_once(kept: Credentials, name: str) -> None:
        if not failed:
            failed.append(1)
            raise TransientError("Prefect's server is away", "Prefect's server")
        keep(kept, name)

    market.sso.answer = rotate  # type: ignore[method-assign]
    monkeypatch.setattr(credentials, "keep_credentials", fail_once)
    assert structure_market(SMALL, table_name, credentials=block).retries == 1
    assert credentials.load_credentials(block).refresh_token == "the-next-one"
    assert market.sso.given == 1


def test_missing_docking_rights_are_explained(
    dynamodb: DynamoDBClient, market: EsiMarket, table_name: str, block: str
) -> None:
    """A 403 also to a new token fails the run; the message says what the cause may be, and nothing is stored."""
    message = r"structure 1000000010001: ESI answered 403 .*either EVE SSO is in trouble.*, or .*allowed to dock there"
    with pytest.raises(RefusedError, match=message):
        structure_market(LOCKED, table_name, credentials=block)
    assert scan(dynamodb, table_name) == {}
    assert (market.requests["HEAD 403"], market.requests["GET 403"], market.sso.given) == (2, 0, 2)


INVALID = "SSO responded with a 400: Invalid token"


@pytest.mark.parametrize(
    ("status", "denials", "given"),
    [
        (403, {"HEAD": 1}, 2),
        (403, {"2": 1}, 2),
        (403, {"HEAD": 1, "1": 1, "3": 1}, 4),
        (401, {"HEAD": 2}, 3),
        (401, {"2": 3}, 4),
    ],
    ids=str,
)
def test_passing_denial_is_retried(
    dynamodb: DynamoDBClient,
    market: EsiMarket,
    table_name: str,
    block: str,
    status: int,
    denials: dict[str, int],
    given: int,
) -> None:
    """A 403, or a 401 even to a new token, is retried once with another token: EVE SSO may be in trouble."""
    find, left = market.find_region, Counter(denials)

    def deny(request: Request) -> int | Reply:
        where = request.query.get("page", "HEAD")
        if request.method == "POST" or not left[where]:
            return find(request)
        left[where] -= 1
        return refuse(status, INVALID)

    market.find_region = deny  # type: ignore[method-assign]
    with hurry():
        summary = structure_market(STRUCTURE, table_name, fetch_concurrency=1, credentials=block)
    assert records(scan(dynamodb, table_name)) == truth(market, STRUCTURE)
    assert summary.retry_causes == {f"ESI {status}": len(denials)}
    assert market.sso.given == given


@pytest.mark.parametrize("page", ["1", "2"])
def test_lasting_denial_of_a_page_is_final(market: EsiMarket, table_name: str, block: str, page: str) -> None:
    """A page that is denied twice fails the run, with ESI's message and the two possible causes."""
    find = market.find_region

    def deny(request: Request) -> int | Reply:
        return refuse(403, INVALID) if request.query.get("page") == page else find(request)

    market.find_region = deny  # type: ignore[method-assign]
    message = f'page {page} of structure {STRUCTURE}: .* 403 .*"{INVALID}"; .*EVE SSO is in trouble.* or .*dock there'
    with hurry(), pytest.raises(RefusedError, match=message):
        structure_market(STRUCTURE, table_name, fetch_concurrency=1, credentials=block)
    assert market.requests["GET 403"] == 2


@pytest.mark.parametrize(
    ("answers", "times"),
    [
        ([(400, b'{"error":"invalid_token"}')], 1),
        ([(400, b'{"error":"invalid_grant"}')], 1),
        ([(401, b'{"error":"invalid_client"}')], 1),
        ([(403, b"<html>")], 1),
        ([(400, b"")], 1),
        ([(400, b'{"error":"invalid_token"}'), (401, b"")], 1),
        ([(400, b'{"error":"temporarily_unavailable"}')], 3),
        ([(503, b"")], 3),
        ([(408, b"")], 3),
        ([(200, b"<html>")], 3),
        ([(200, b'{"error":"server_error"}')], 3),
    ],
    ids=str,
)
def test_passing_refusal_of_the_sign_on_is_retried(
    market: EsiMarket, table_name: str, block: str, answers: list[tuple[int, bytes]], times: int
) -> None:
    """A refusal of the token endpoint is retried once, and more often if it says that it is in trouble."""
    answer, planned = market.sso.answer, answers * times
    market.sso.answer = lambda body, now: planned.pop(0) if planned else answer(body, now)  # type: ignore[method-assign]
    with hurry():
        summary = structure_market(SMALL, table_name, credentials=block)
    assert (summary.pages, summary.retries) == (1, len(answers) * times)


def test_denial_and_refusal_of_the_sign_on_may_come_together(market: EsiMarket, table_name: str, block: str) -> None:
    """A 403 from ESI and then a 400 from EVE SSO, for the same request, are both retried."""
    find, answer = market.find_region, market.sso.answer
    seen: list[str] = []

    def deny(request: Request) -> int | Reply:
        if request.method == "HEAD" and not seen:
            seen.append("ESI")
            return refuse(403, INVALID)
        return find(request)

    def fail_once(body: bytes, now: float) -> tuple[int, bytes]:
        if len(seen) == 1:
            seen.append("EVE SSO")
            return 400, b'{"error":"invalid_token"}'
        return answer(body, now)

    market.find_region, market.sso.answer = deny, fail_once  # type: ignore[method-assign]
    with hurry():
        assert structure_market(SMALL, table_name, credentials=block).retry_causes == {
            "ESI 403": 1,
            "EVE SSO 400": 1,
        }


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (
            400,
            "invalid_grant",
            "answered 400: it does not accept the refresh token; .*in trouble.* or .*authorise .*again",
        ),
        (400, "invalid_token", "answered 400: it does not accept the refresh token, or client_id and client_secret; "),
        (
            401,
            "invalid_client",
            "answered 401: it does not accept client_id and client_secret; .*in trouble.* or .*Secret",
        ),
        (404, "", "answered 404, which no token endpoint does; is ESI_SSO_URL right"),
        (302, "", "answered 302, which no token endpoint does"),
    ],
)
def test_lasting_refusal_of_the_sign_on_is_final(
    market: EsiMarket, table_name: str, block: str, status: int, error: str, message: str
) -> None:
    """Two refusals of the token endpoint fail the run, with the possible cause, and ESI gets no request."""
    calls: list[float] = []

    def refuse_all(body: bytes, now: float) -> tuple[int, bytes]:
        assert body
        calls.append(now)
        return status, f'{{"error":"{error}"}}'.encode()

    market.sso.answer = refuse_all  # type: ignore[method-assign]
    with hurry(), pytest.raises(RefusedError, match=message):
        structure_market(STRUCTURE, table_name, credentials=block)
    assert len(calls) == 2
    assert {request for request in market.requests if request.startswith(("HEAD", "GET"))} == set()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the server has no such block"),
        ({"client_id": "app"}, "has other contents in it"),
        ("no json", "has other contents in it"),
        ({"client_id": "app", "refresh_token": "gone"}, "EVE SSO answered 400: it does not accept the refresh token"),
    ],
    ids=["no block", "half a block", "text", "refused"],
)
def test_bad_credentials_are_explained(market: EsiMarket, table_name: str, value: Any, message: str) -> None:
    """Missing, incomplete or refused credentials fail the run, with what to do, before any request to ESI."""
    name = f"eve-sso-{random.getrandbits(40)}"
    if value is not None:
        store(name, value)
    with pytest.raises(RefusedError, match=message):
        structure_market(STRUCTURE, table_name, credentials=name)
    assert not {request for request in market.requests if "GET" in request or "HEAD" in request}


def test_secrets_show_nowhere(
    api: Api, market: EsiMarket, table_name: str, block: str, logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither tokens nor the application's secret are in logs, in output or in Prefect's data of a run."""
    state = structure_market(STRUCTURE, table_name, credentials=block, return_state=True)
    structure_market(LOCKED, f"{table_name}-locked", credentials=block, return_state=True)
    captured = capfd.readouterr()
    kept = api.send("GET", f"/flow_runs/{state.state_details.flow_run_id}").text
    for secret in (REFRESH_TOKEN, "s3cret-of-app", "made-up-access"):
        assert secret not in logged.getvalue() + captured.out + captured.err + kept
    assert market.sso.given
    assert logged.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        {"structure_id": 60003760},
        {"structure_id": "Jita"},
        {"structure_id": STRUCTURE, "table_name": "{region_id}"},
        {"structure_id": STRUCTURE, "credentials": "A B"},
    ],
    ids=str,
)
def test_wrong_parameter_is_refused(market: EsiMarket, given: dict[str, Any]) -> None:
    """A wrong parameter is refused before any request, with what is allowed."""
    with pytest.raises(ParameterTypeError, match="is refused: give "):
        structure_market(**given)
    assert not market.requests


def test_next_snapshot_is_differential(
    dynamodb: DynamoDBClient, market: EsiMarket, clock: Clock, table_name: str, block: str
) -> None:
    """For a structure's next snapshot only the differences are written, as for a region's."""
    structure_market(STRUCTURE, table_name, credentials=block)
    expire(dynamodb, table_name)
    clock.now += 300
    summary = structure_market(STRUCTURE, table_name, credentials=block)
    assert records(scan(dynamodb, table_name)) == truth(market, STRUCTURE)
    assert 0 < summary.written < summary.records / 2
