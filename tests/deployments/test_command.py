"""The flow from the command line: its options, its answers and its exit codes."""

import os
import pty
import re
import sys

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.command import run_flow
from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from flows.market_data import market_data
from tests.conftest import scan
from tests.flows.test_market_data import DERELIK, records, truth

PROGRAM = "python -m flows.market_data"


def test_help_has_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names each parameter, what it means, its choices and its default."""
    with pytest.raises(SystemExit) as ended:
        run_flow(market_data, PROGRAM, ["--help"])
    assert ended.value.code == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name in market_data.parameters.properties:
        assert f"--{name.replace('_', '-')}" in said
    assert f"usage: {PROGRAM}" in said
    assert "The market region, such as 10000002 for The Forge. (default: 10000015)" in said
    assert "{min,max,mean,weighted_mean,median,percentile_5}" in said
    assert "best 5 % of the volume" in said


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--region-id", "Jita"], "'Jita' is refused: give a region's id, such as 10000002 for The Forge"),
        (["--price", "lowest"], "'lowest' is refused: give min, max, mean, weighted_mean, median or percentile_5"),
    ],
)
def test_wrong_option_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that the flow refuses ends with exit code 2, and says what is allowed."""
    assert run_flow(market_data, PROGRAM, arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("api", "served", "store_url")
def test_failure_is_told(capsys: pytest.CaptureFixture[str], table_name: str) -> None:
    """A run that fails ends with exit code 1 and its message."""
    assert run_flow(market_data, PROGRAM, ["--region-id", "19999999", "--table-name", table_name]) == 1
    assert "market-data failed: region 19999999: ESI answered 404 Not Found" in capsys.readouterr().err


@pytest.mark.usefixtures("api", "served", "store_url")
def test_run_ends_with_its_summary(
    capsys: pytest.CaptureFixture[str], dynamodb: DynamoDBClient, market: Market, table_name: str
) -> None:
    """Without a terminal a run prints its summary, and no bar."""
    assert run_flow(market_data, PROGRAM, ["--region-id", str(DERELIK), "--table-name", table_name]) == 0
    out = capsys.readouterr().out
    assert re.search(
        rf"^{table_name} has region {DERELIK} of .* UTC: [\d,]+ records \([\d,]+ written, ", out, re.MULTILINE
    )
    assert "\x1b" not in out
    assert records(scan(dynamodb, table_name)) == truth(market, DERELIK)


@pytest.mark.usefixtures("api", "served", "store_url")
def test_terminal_shows_bars(market: Market, table_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal each mapped state is a bar that fills, in place of the log's lines."""
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    market.latency_seconds = 0.1
    said: list[bytes] = []

    def read(terminal: int) -> bytes:
        said.append(os.read(terminal, 4096))
        return said[-1]

    command = [sys.executable, "-m", "flows.market_data", "--region-id", str(DERELIK), "--table-name", table_name]
    code = pty.spawn([*command, "--fetch-concurrency", "2"], read, lambda _: b"")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(said).decode())
    assert os.waitstatus_to_exitcode(code) == 0
    counts = [int(count) for count in re.findall(r"Fetch Pages, pages .*?(\d+)/20", shown)]
    assert counts[-1] == 20
    assert len(set(counts)) > 3
    assert "Store Records, writes" in shown
    assert "Fetch Pages begins" not in shown
    assert f"{table_name} has region {DERELIK} of " in shown
