"""`make run` and `make table`, as a newcomer runs them."""

import os
import pty
import re
from pathlib import Path

import pytest

from deployments.local.market.market import refuse
from tests.support.clone import processes_of, run_make
from tests.support.worlds import Clock, Faulty, serve

STATES = ["Get Page Count", "Build Iterator", "Fetch Pages", "Aggregate", "Store Records: compare", "Store Records"]


@pytest.mark.outage
def test_make_run_twice_and_table(clone: Path) -> None:
    """`make run` fills the table, a second run finds it not modified, and `make table` prints it."""
    region = "10000003"  # one page
    first = run_make(clone, "run", REGION=region)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Fetch Pages: 1 of 1 pages" in first.stdout
    ended = re.findall(r"^ *[\d.]+ s    (.*) ends after [\d.]+ s", first.stdout, re.MULTILINE)
    assert ended == STATES
    assert "Finished in state" not in first.stdout
    assert "by a state machine" in first.stdout
    assert "base64" not in first.stdout
    assert "MarketData-10000003: Vale of the Silent (10000003)" in first.stdout
    second = run_make(clone, "run", REGION=region, VERBOSE="1")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "Task run 'Get Page Count' - Finished in state" in re.sub(r"\n +", " ", second.stdout)
    assert "not modified: MarketData-10000003 has region 10000003" in second.stdout or "records (" in second.stdout
    table = run_make(clone, "table", REGION=region)
    assert table.returncode == 0, table.stdout + table.stderr
    assert "price (ISK)" in table.stdout
    for done in (first, second, table):
        assert not [line for line in done.stdout.splitlines() if len(line) > 80 and len(line.split()) > 1]
    assert not list((clone.parent / "home").iterdir()), "the home directory is not empty"
    assert not processes_of(clone)


@pytest.mark.outage
def test_make_run_of_a_hub_in_a_terminal(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MARKETS=… make run` fills a table of several markets and prints the first; `MARKET=…` selects another.

    In a terminal, it shows the progress of the states as bars.
    """
    hub, region = "60004588", "10000030"
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("MARKETS", f"{hub} {region}")
    monkeypatch.chdir(clone)
    output: list[bytes] = []

    def read(terminal: int) -> bytes:
        output.append(os.read(terminal, 4096))
        return output[-1]

    code = pty.spawn(["make", "--no-print-directory", "run"], read, lambda _: b"")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(output).decode())
    assert os.waitstatus_to_exitcode(code) == 0, shown
    assert re.findall(r"━+ [\d:]+ Fetch Pages: 76 of 76 pages", shown)
    assert re.findall(r"━+ [\d:]+ Store Records: ([\d,]+) of \1 writes", shown)
    assert f"Markets-{region}: Rens ({hub})" in shown
    assert "Tritanium" in shown
    assert f"REGION={region} MARKETS='{hub} {region}' make table" in shown
    lines = [line for line in re.split(r"[\r\n]+", shown) if "━" not in line]
    assert not [line for line in lines if len(line) > 80 and len(line.split()) > 1]
    whole = run_make(clone, "table", MARKET=region, TYPE="Tritanium")
    assert f"Markets-{region}: Heimatar ({region})" in whole.stdout
    assert not processes_of(clone)


@pytest.mark.outage
def test_failed_make_run_prints_the_reason(clone: Path, clock: Clock) -> None:
    """If the flow run fails, `make run` prints the reason in one line and fails."""
    market = Faulty(clock)
    market.plan = {"HEAD": [refuse(403, "go away")], "1": [refuse(403, "go away")]}
    with serve(market) as url:
        done = run_make(clone, "run", ESI_URL=url)
    assert done.returncode != 0
    reason = 'region 10000015: ESI answered 403 Forbidden: "go away"; not retried'
    assert done.stderr.splitlines()[0] == f"the flow run ended as Failed: {reason}"
    assert not processes_of(clone)
