"""How a failed run says why in Prefect, and which errors are this project's."""

import logging
from typing import Any

import pytest
from prefect import State

from flows.market_data import market_data
from flows.universe import universe
from tasks.network import check_url
from tasks.reporting.failure import is_ours
from tasks.table.errors import TableError
from tests.support.api import Api
from tests.support.runs import read_artifacts

UNKNOWN = 19_999_999


@pytest.mark.usefixtures("served", "store_url", "api")
def test_universe_says_why_once_a_region(table_name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log of a run of many regions says once why a region failed."""
    universe([10000003, UNKNOWN], table_name + "-{region_id}")
    logged = [record for record in caplog.records if f"{UNKNOWN}: ESI answered 404" in record.getMessage()]
    assert [(record.levelno, vars(record)["flow_name"]) for record in logged] == [
        (logging.WARNING, "universe"),
    ]
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.usefixtures("served", "store_url")
def test_refused_parameters_leave_no_artifact(api: Api, table_name: str) -> None:
    """A run with refused parameters creates no artifact, because nothing started; its state says what is allowed."""
    state: State[Any] = market_data(UNKNOWN, table_name, fetch_concurrency=0, return_state=True)
    assert "fetch_concurrency: 0 is refused: give 1 to 500" in (state.message or "")
    assert not [artifact for artifact in read_artifacts(api, str(state.state_details.flow_run_id)) if artifact["key"]]


def test_errors_of_this_project() -> None:
    """An error is this project's by its class, a ValueError by the function that raised it."""
    assert is_ours(TableError("planned"))
    with pytest.raises(ValueError, match="ESI_URL") as ours:
        check_url("ftp://esi", "ESI_URL", "https://esi.evetech.net")
    assert is_ours(ours.value)
    with pytest.raises(ValueError, match="time data") as theirs:
        __import__("datetime").datetime.strptime("x", "%Y")
    assert not is_ours(theirs.value)
    assert not is_ours(KeyError("planned"))
    assert not is_ours(None)
