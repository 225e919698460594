"""The production topology survives kills, and what is said of it comes from what was counted."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.scale.__main__ import PROGRAMS
from benchmarks.scale.check import add_up, compare, is_complete, to_digits, true_items
from benchmarks.scale.figures import Figures, Result, count_lines, describe
from benchmarks.scale.kills import Kill, Kills, pid_of
from benchmarks.scale.process_tree import find_tree, kill_all, machine_seconds, stop_tree, tree_seconds
from benchmarks.scale.services import MissingProgramError, count_messages, find_program
from benchmarks.tables import WrongTableError
from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from tests.support.programs import needs
from tests.support.servers import wait_for
from tests.support.truth import truth
from tests.support.worlds import VENAL

TRITANIUM = {"pk": {"S": "34"}, "price": {"N": "4.1"}, "volume": {"N": "30"}}
SNAPSHOT = {
    "state": {"S": "complete"},
    "region_id": {"N": "10000015"},
    "order_type": {"S": "sell"},
    "price": {"S": "min"},
    "detail": {"S": "compact"},
    "last_modified": {"S": "2026-05-23T09:45:00Z"},
}
MODIFIED = 1_779_529_500
SMALL = ["10000015", "10000001", "10000063"]  # 7 pages, 20 pages, and an empty one


def missing_programs() -> list[str]:
    """The programs of PostgreSQL and Redis that are not installed."""
    missing = []
    for name in PROGRAMS:
        try:
            find_program(name)
        except MissingProgramError as error:
            missing.append(str(error))
    return missing


def test_true_items_are_the_exact_table(market: Market) -> None:
    """They are what the tests' own slow aggregation says."""
    assert true_items(VENAL, market.index) == truth(market, VENAL)


def test_sell_orders_are_added_up() -> None:
    """Buy orders do not count; the cheapest price and all of the volume do."""
    orders = [(34, 5.0, 10, False), (34, 4.1, 20, False), (34, 9.0, 7, True), (35, 1e7, 1, True)]
    assert add_up(orders) == {"34": TRITANIUM}


@pytest.mark.parametrize(("price", "digits"), [(5.7, "5.7"), (10.0, "10"), (1e16, "10000000000000000"), (0.01, "0.01")])
def test_prices_are_plain_digits(price: float, digits: str) -> None:
    """A number is as DynamoDB holds it."""
    assert to_digits(price) == digits


def test_differences_are_named() -> None:
    """A table that lacks a record is wrong if it is to be whole; one that holds a false record always is."""
    compare("T", {}, {"34": TRITANIUM}, is_whole=False)
    with pytest.raises(WrongTableError, match="1 of 1 records are wrong; 34 is None, expected"):
        compare("T", {}, {"34": TRITANIUM}, is_whole=True)
    for false in ({"34": TRITANIUM | {"volume": {"N": "31"}}}, {"34": TRITANIUM, "35": TRITANIUM}):
        with pytest.raises(WrongTableError, match="records are wrong"):
            compare("T", false, {"34": TRITANIUM}, is_whole=False)


@pytest.mark.parametrize(
    ("change", "complete"),
    [
        ({}, True),
        ({"state": {"S": "writing"}}, False),
        ({"region_id": {"N": "10000002"}}, False),
        ({"last_modified": {"S": "2026-05-23T09:40:00Z"}}, False),
    ],
)
def test_only_the_whole_right_snapshot_is_complete(change: dict[str, dict[str, str]], *, complete: bool) -> None:
    """`#snapshot` must say complete, of this region and of this snapshot."""
    assert is_complete(SNAPSHOT | change, 10000015, MODIFIED) is complete
    assert not is_complete(None, 10000015, MODIFIED)


def test_requests_are_counted_by_the_access_log() -> None:
    """Each answer of the API counts, whatever its status; web sockets, pages of the UI and other lines do not."""
    lines = [
        'INFO:     127.0.0.1:1 - "POST /api/flow_runs/filter HTTP/1.1" 200 OK',
        '14:15:53.632 | INFO    | uvicorn.access - 127.0.0.1:1 - "GET /api/health HTTP/1.1" 503',
        'INFO:     127.0.0.1:1 - "WebSocket /api/events/in" [accepted]',
        'INFO:     127.0.0.1:1 - "GET /dashboard HTTP/1.1" 200 OK',
        "14:15:53.632 | ERROR   | prefect.server - GET /api/health",
    ]
    assert count_lines(lines) == 2


def test_messages_that_nobody_has_done_with_are_counted() -> None:
    """What a group has not read, and what it has not acknowledged; an unknown lag is none."""
    answer = ["name", "a", "consumers", "1", "pending", "2", "entries-read", "5", "lag", "3"]
    assert count_messages(answer + answer) == 10
    assert count_messages([*answer[:-1], ""]) == 2


def test_figures_are_differences() -> None:
    """What was used between two moments, also by parts that were not there before."""
    before = Figures(1.0, {"workers": 1.0}, 10, 100, Counter(events=1), Counter(events=8))
    after = Figures(3.5, {"workers": 4.0, "server": 2.0}, 25, 300, Counter(events=7, log=2), Counter(events=24))
    grown = Figures(2.5, {"workers": 3.0, "server": 2.0}, 15, 200, Counter(events=6, log=2), Counter(events=16))
    assert after.since(before) == grown


def test_result_says_what_was_measured() -> None:
    """The table has a row of figures, and the lines below it are of rounds, kills and growth."""
    cpu = dict.fromkeys(("workers", "api", "services", "postgres", "redis", "store", "market", "others"), 1.4)
    used = Figures(20.0, cpu, 99, 2**20, Counter(events=3), Counter(events=2048, log=1024))
    result = Result(2, 3, 28, 500, [Counter(Completed=2, Crashed=1), Counter(Completed=3)], ["killed"], used, 2**21)
    heading, head, _line, row, *rest = describe(result).splitlines()
    assert heading == "3 regions, 28 pages, 500 records: all tables exact"
    assert head.split(" | ")[:4] == ["| workers", "rounds", "seconds", "pages/s"]
    assert row == "| 2 | 2 | 20 | 1.4 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 99 | 2.0 | 1.0 |"
    assert rest == [
        "round 1: 2 Completed, 1 Crashed",
        "round 2: 3 Completed",
        "killed",
        "rows: 3 events",
        "KiB: 2 events, 1 log",
    ]


def test_kills_come_in_their_order_and_once() -> None:
    """A kill waits for its share of the regions, and is tried again where there was nothing to kill."""
    said: list[str] = []

    class Topology:
        """Say what it is told."""

        say = said.append

    answers = iter([None, "killed a worker"])
    plan = [Kill(0.25, lambda _: next(answers)), Kill(0.5, lambda _: "killed Redis")]
    kills = Kills(Topology(), plan, 8)  # type: ignore[arg-type] # all that is asked of it
    for ended in (1, 2, 2, 3, 4, 8):
        kills.play(ended)
    assert kills.done == ["killed a worker", "killed Redis"]
    assert said == ["2 regions have ended: killed a worker", "4 regions have ended: killed Redis"]


def test_process_ids_are_read() -> None:
    """Prefect notes host and process id; of a run that has not begun nothing."""
    assert (pid_of("host:17"), pid_of("")) == (17, 0)


def test_tree_is_counted_and_killed() -> None:
    """A child's CPU counts, also after its end; all that a process has started ends with it."""
    child = "import time; until = time.process_time() + 0.3\nwhile time.process_time() < until: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print(flush=True)\n"
    code += "subprocess.run(['sleep', '60'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        parent.stdout.readline()
        assert 0.25 <= tree_seconds(parent.pid) <= machine_seconds()  # the kernel counts in ticks
        wait_for(lambda: len(find_tree(parent.pid)) == 2, "the second child")
        pids = stop_tree(parent.pid)
        kill_all(pids)
    assert len(pids) == 2
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "their end")


def is_alive(pid: int) -> bool:
    """Return whether a process has not ended; one that nobody has asked about yet has ended all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the packages to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingProgramError, match="on Debian: apt-get install postgresql redis-server"):
        find_program("a-program-that-is-not-there")


@pytest.mark.outage
@needs(not missing_programs(), "; ".join(missing_programs()))
def test_tables_are_exact_after_kills() -> None:
    """A worker, the API servers and Redis die while two workers run three regions; nothing is left running."""
    done = run_scale("--workers", "2", "--regions", *SMALL)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "3 regions, 28 pages, 11579 records: all tables exact" in done.stdout
    for killed in ("killed worker-", "killed the API servers", "killed Redis"):
        assert killed in done.stdout
    assert not left_over()


@pytest.mark.outage
@needs(not missing_programs(), "; ".join(missing_programs()))
def test_nothing_is_left_when_it_is_stopped() -> None:
    """Ctrl-C while everything is up ends every process and removes the databases' folder."""
    command = [sys.executable, "-m", "benchmarks.scale", "--workers", "1", "--no-kills", "--regions", *SMALL]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            if "running the universe" in line:
                break
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=120)
    assert running.returncode == 130
    assert not left_over()


def run_scale(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    command = [sys.executable, "-m", "benchmarks.scale", *words]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=600, check=False)


def left_over() -> list[str]:
    """What a run of it has left: processes of its own, and folders of its databases."""
    marks = re.compile(rf"market-data-scale-|{re.escape(str(CHECKOUT / '.local' / 'scale'))}")
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes() if process.name != str(os.getpid()) else b""
            lines.append((process / "cmdline").read_bytes().decode(errors="replace") + environ.decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if marks.search(line)] + [str(p) for p in Path("/tmp").glob("market-data-scale-*")]
