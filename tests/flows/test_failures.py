"""What the flow does at its real pace: retries with real waits, a missing table, a large region's memory."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market, refuse
from flows.market_data import market_data
from tasks.esi.pause import find_pause
from tasks.table.errors import TableError
from tests.support.worlds import DERELIK, VENAL, Clock, Faulty, serve

pytestmark = pytest.mark.usefixtures("store_url", "api")


@pytest.fixture
def market(clock: Clock) -> Faulty:
    """Return the market of these tests."""
    return Faulty(clock)


@pytest.fixture
def url(served: str) -> Iterator[str]:
    """Yield the market's address; any pause for it ends with the test."""
    yield served
    find_pause.cache_clear()  # as if its time were over


def test_retry_fetches_only_the_missing_pages_of_a_chunk(market: Faulty, url: str, table_name: str) -> None:
    """A retry of a chunk fetches only the page that failed."""
    assert url
    market.plan = {"7": [refuse(502, "bad gateway")]}
    summary = market_data(DERELIK, table_name)  # 20 pages, five a chunk
    assert (summary.pages, summary.retries) == (20, 1)
    assert sum(market.pages.values()) == 21
    assert market.pages["7"] == 2


def test_head_is_retried(market: Faulty, url: str, table_name: str) -> None:
    """Get Page Count is retried too."""
    assert url
    market.plan = {"HEAD": [refuse(504, "timeout")]}
    assert market_data(10000003, table_name).retries == 1


def test_missing_table_elsewhere_is_explained(
    market: Faulty, url: str, table_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing table on another machine fails the run before any request, with the command that creates it."""
    assert url
    monkeypatch.setattr("tasks.table.connection.is_this_machine", lambda _host: False)
    with pytest.raises(TableError, match=f"{table_name} does not exist .* `aws dynamodb create-table .*{table_name} "):
        market_data(VENAL, table_name)
    assert not market.requests


def test_the_forge_stays_within_a_gibibyte(table_name: str) -> None:
    """433 pages with over 430,000 orders are fetched and stored within 1 GiB of resident memory."""
    program = f"""
import json, resource
from flows.market_data import market_data
summary = market_data(10000002, {table_name!r})
print(json.dumps([summary.pages, summary.orders, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
    with serve(Market()) as url:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            env=os.environ | {"ESI_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    pages, orders, resident_kib = json.loads(done.stdout.splitlines()[-1])
    assert pages == 433
    assert orders > 430_000
    assert resident_kib < 1024 * 1024
