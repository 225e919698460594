"""The production topology survives kills, and its figures are what was counted."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale.__main__ import PROGRAMS
from benchmarks.scale.figures import REQUEST, Figures, Result, describe, machine_seconds, subtract
from benchmarks.scale.kills import Kill, kill_due, pid_of
from benchmarks.scale.topology import count_messages, find_program
from benchmarks.tables import Tables, WrongTableError, compare, is_complete, to_records, true_items
from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from deployments.local.processes import Child, StackError, find_tree
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
    """Return the messages about programs of PostgreSQL and Redis that are not installed."""
    missing = []
    for name in PROGRAMS:
        try:
            find_program(name)
        except StackError as error:
            missing.append(str(error))
    return missing


def test_true_items_are_the_exact_table(market: Market) -> None:
    """They are those of the tests' own slow aggregation, of the snapshot with this number."""
    assert true_items(VENAL, market.index) == truth(market, VENAL)


@pytest.mark.parametrize("digits", ["5.7", "10", "10000000000000000", "0.01"])
def test_prices_are_plain_digits(digits: str) -> None:
    """Numbers have no exponent and no trailing zeros, even if the store kept them."""
    item = {"pk": {"S": "34"}, "price": {"N": f"{digits}{'.00' * ('.' not in digits)}"}}
    assert to_records({"34": item}) == {"34": {"pk": {"S": "34"}, "price": {"N": digits}}}


def test_wrong_records_are_named() -> None:
    """A missing record is wrong in a whole table only; a wrong or extra record always is."""
    compare("T", {}, {"34": TRITANIUM}, is_whole=False)
    with pytest.raises(WrongTableError, match="1 of 1 records are wrong; 34 is None, expected"):
        compare("T", {}, {"34": TRITANIUM}, is_whole=True)
    for wrong in ({"34": TRITANIUM | {"volume": {"N": "31"}}}, {"34": TRITANIUM, "35": TRITANIUM}):
        with pytest.raises(WrongTableError, match="records are wrong"):
            compare("T", wrong, {"34": TRITANIUM}, is_whole=False)


@pytest.mark.parametrize(
    ("change", "complete"),
    [
        ({}, True),
        ({"state": {"S": "writing"}}, False),
        ({"region_id": {"N": "10000002"}}, False),
        ({"last_modified": {"S": "2026-05-23T09:40:00Z"}}, False),
    ],
)
def test_only_the_right_snapshot_is_complete(change: dict[str, dict[str, str]], *, complete: bool) -> None:
    """`#snapshot` must be complete, and of this region and snapshot."""
    assert is_complete(SNAPSHOT | change, 10000015, MODIFIED) is complete


def test_tables_without_a_snapshot_are_unfinished(store_url: str) -> None:
    """A region is unfinished if its table is missing or has no `#snapshot`; a missing table has no items."""
    tables, whole = Tables(store_url), {"#snapshot": {"pk": {"S": "#snapshot"}} | SNAPSHOT}
    with tables.create({10000015: whole, 10000001: {}}) as template:
        assert tables.find_unfinished(template, [10000015, 10000001, 10000063], MODIFIED) == [10000001, 10000063]
        assert tables.read(template.format(region_id=10000063)) == {}


def test_requests_are_counted_by_the_access_log() -> None:
    """All responses of the API count, whatever their status; web sockets, pages of the UI and other lines do not."""
    lines = [
        'INFO:     127.0.0.1:1 - "POST /api/flow_runs/filter HTTP/1.1" 200 OK',
        '14:15:53.632 | INFO    | uvicorn.access - 127.0.0.1:1 - "GET /api/health HTTP/1.1" 503',
        'INFO:     127.0.0.1:1 - "WebSocket /api/events/in" [accepted]',
        'INFO:     127.0.0.1:1 - "GET /dashboard HTTP/1.1" 200 OK',
        "14:15:53.632 | ERROR   | prefect.server - GET /api/health",
    ]
    assert len(REQUEST.findall("\n".join(lines))) == 2


def test_unacknowledged_messages_are_counted() -> None:
    """Unread and unacknowledged messages of all groups count; an unknown lag is 0."""
    group = {"name": b"a", "consumers": 1, "pending": 2, "entries-read": 5, "lag": 3}
    assert count_messages([group, group]) == 10
    assert count_messages([group | {"lag": None}]) == 2


def test_figures_are_differences() -> None:
    """Figures are subtracted by name; a new one counts from 0."""
    before = {"seconds": 1.0, "cpu worker": 1.0, "requests": 10, "database": 100, "rows events": 1, "bytes events": 8}
    after = {"seconds": 3.5, "cpu worker": 4.0, "cpu api": 2.0, "requests": 25, "database": 300, "rows events": 7}
    after |= {"rows log": 2, "bytes events": 24}
    grown = {"seconds": 2.5, "cpu worker": 3.0, "cpu api": 2.0, "requests": 15, "database": 200, "rows events": 6}
    assert subtract(after, before) == grown | {"rows log": 2, "bytes events": 16}


def test_result_is_described() -> None:
    """The table has a row of figures; rounds, kills and growth follow."""
    parts = ("worker", "api", "services", "postgres", "redis", "store", "market", "others")
    used: Figures = {"seconds": 20.0, "requests": 99, "database": 2**20, "rows events": 3, "rows log": 0}
    used |= dict.fromkeys((f"cpu {part}" for part in parts), 1.4) | {"bytes events": 2048, "bytes log": 1024}
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


def test_kills_are_executed_once_and_in_order() -> None:
    """A kill waits for its share of the tables, and is repeated if there was nothing to kill."""
    answers = iter([None, "killed a worker"])
    plan = [Kill(0.25, lambda _: next(answers)), Kill(0.5, lambda _: "killed Redis")]
    topology: Any = None  # not used
    done = [(complete, kill_due(topology, plan, complete / 8)) for complete in (1, 2, 2, 3, 4, 8)]
    assert done == [(1, None), (2, None), (2, "killed a worker"), (3, None), (4, "killed Redis"), (8, None)]
    assert not plan


def test_process_ids_are_read() -> None:
    """Prefect records host and process id; nothing for a run that has not started."""
    assert (pid_of("host:17"), pid_of("")) == (17, 0)


def test_tree_is_counted_and_killed(tmp_path: Path) -> None:
    """Ended descendants count towards a child's CPU; a kill includes all descendants."""
    burn = "import time; until = time.process_time() + 0.3\nwhile time.process_time() < until: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True)\n"
    code += "subprocess.run(['sleep', '60'])"
    child = Child("tree", [sys.executable, "-c", code], os.environ, tmp_path / "log")
    wait_for(lambda: bool(child.log.read_bytes()), "the end of the first grandchild")
    assert 0.25 <= child.used_seconds() <= machine_seconds()  # the kernel counts in ticks
    wait_for(lambda: len(find_tree(child.pid)) == 2, "the second grandchild")
    pids = find_tree(child.pid)
    assert child.kill_tree() == len(pids) == 2
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "their end")


def is_alive(pid: int) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the packages to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackError, match="on Debian: apt-get install postgresql redis-server"):
        find_program("a-program-that-is-not-there")


@pytest.mark.outage
@pytest.mark.skipif(bool(missing_programs()), reason="; ".join(missing_programs()))
def test_tables_are_exact_after_kills() -> None:
    """All tables are exact after a worker, the API servers and Redis were killed, and nothing is left running."""
    done = run_scale("--workers", "2", "--regions", *SMALL)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "3 regions, 28 pages, 11579 records: all tables exact" in done.stdout
    for killed in ("killed worker-", "killed the API servers", "killed Redis"):
        assert killed in done.stdout
    assert not left_over()


@pytest.mark.outage
@pytest.mark.skipif(bool(missing_programs()), reason="; ".join(missing_programs()))
def test_nothing_is_left_after_ctrl_c() -> None:
    """Ctrl-C ends all processes and removes the databases' folder."""
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
    """Run `benchmarks.scale` to its end."""
    command = [sys.executable, "-m", "benchmarks.scale", *words]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=600, check=False)


def left_over() -> list[str]:
    """Return the processes and database folders that a run has left."""
    marks = re.compile(rf"market-data-scale-|{re.escape(str(CHECKOUT / '.local' / 'scale'))}")
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes() if process.name != str(os.getpid()) else b""
            lines.append((process / "cmdline").read_bytes().decode(errors="replace") + environ.decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if marks.search(line)] + [str(p) for p in Path("/tmp").glob("market-data-scale-*")]
