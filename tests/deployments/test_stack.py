"""The embedded stack: what it is given, what it starts, and that nothing of it stays."""

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local import stack
from deployments.local.commands import is_made_up
from deployments.local.environment import (
    CHECKOUT,
    DEFAULT_REGION,
    Options,
)
from deployments.local.market.market import refuse
from deployments.local.market.server import serve
from deployments.local.run import print_summary
from deployments.local.show import show_table
from deployments.local.stack import Addresses, FullDiskError, check_disk, read_automations
from deployments.status import ROUNDS, SNAPSHOTS
from flows.market_data import market_data
from tasks.catalogue.names import regions
from tests.support.worlds import Clock, Faulty

STATES = ["Get Page Count", "Build Iterator", "Fetch Pages", "Aggregate", "Store Records: compare", "Store Records"]
TYPED = """python -m flows.market_data --region-id 10000003 --table-name 'MarketData-{region_id}'
python - <<'PY'
from tasks.catalogue.names import region_name
from tasks.table import read_records
records, snapshot = read_records("MarketData-10000003")
print(f"{region_name(snapshot.region_id)}: {snapshot.region_id}")
PY
"""


@pytest.mark.parametrize(
    ("store", "asked", "found", "made_up"),
    [
        ("local", "", "http://127.0.0.1:5", True),
        ("local", "", "https://esi.evetech.net", False),
        ("local", "", "", True),
        ("local", "https://esi.evetech.net", "", False),
        ("aws", "", "", False),
    ],
)
def test_orders_are_those_of_the_stack(
    store: Literal["local", "aws"], asked: str, found: str, *, made_up: bool
) -> None:
    """A report calls orders made up where the stack that is up has them from the stand-in."""
    assert is_made_up(Options(DEFAULT_REGION, store, asked), Addresses(1, found, "")) == made_up


def test_bad_region_ends_make_at_once() -> None:
    """`REGION=Jita make run` starts nothing, says why in one line, and fails."""
    command = [sys.executable, "-m", "deployments.local", "run"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=os.environ | {"REGION": "Jita"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "REGION is 'Jita': give a region's id, such as 10000002 for The Forge\n"


@pytest.mark.parametrize(
    ("name", "options"),
    [("deployments.local", "{run,up,shell,table,status,report}"), ("deployments.local.market", "--every")],
)
def test_help_explains(name: str, options: str) -> None:
    """`--help` names the choices."""
    done = subprocess.run(
        [sys.executable, "-m", name, "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert options in done.stdout


def test_full_disk_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk with too little room is refused, with how much there is and what to do."""
    check_disk(tmp_path)
    monkeypatch.setattr(stack, "FREE_BYTES", 2**60)
    with pytest.raises(FullDiskError, match=r"has \d+ MiB left, the stack needs \d+ MiB: make room, or `make clean`"):
        check_disk(tmp_path)


@pytest.mark.usefixtures("api", "served", "store_url")
def test_table_is_whole_in_80_columns(
    table_name: str, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number and no word of a name is broken, cut or longer than the line, in however narrow a terminal."""
    monkeypatch.setenv("COLUMNS", "30")
    market_data(10000003, table_name)
    number = "12345678901234567.89"
    for pk in ("34", "23055"):  # the second has a long name
        item = {"pk": {"S": pk}, "price": {"N": number}, "volume": {"N": "9876543210987654"}}
        dynamodb.put_item(TableName=table_name, Item=item)
    capsys.readouterr()
    show_table(table_name, "")
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if len(line) > 80]
    rows = [line for line in lines if f"{Decimal(number):,.2f}  9,876,543,210,987,654  " in line]
    assert len(rows) == 2
    assert any(line.endswith("  Tritanium") for line in rows)


def test_summary_is_whole_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """A run's summary has a row a line, whose words stay whole even if one is longer than the line."""
    table_name = "MarketData-" + "a-10000002" * 20
    print_summary(f"| | |\n| --- | --- |\n| table | {table_name} |\n| pages | 7 |\n\nThe price {'is DynamoDB ' * 20}")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:3]] == [["table", table_name], ["pages", "7"]]
    assert not [line for line in lines if len(line) > 80 and table_name not in line]


def test_docs_count_right() -> None:
    """What the Makefile and the docs count of the stack is what there is."""
    minutes = [f"{limit.total_seconds() / 60:.0f}" for limit in (SNAPSHOTS, ROUNDS)]
    numbers = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    started = set(re.findall(r'self\._start\("(\w+)"', Path(CHECKOUT, "deployments/local/stack.py").read_text()))
    counted = {
        ("Makefile", r"each of the stack's (\w+) processes"): {numbers[len(started | {"flow run"})]},
        ("README.md", r"The Forge, (\d+) pages"): {str(regions().pages[10000002])},
        ("docs/operating.md", r"older than (\d+) minutes, or (\d+) if the universe"): set(minutes),
        ("docs/operating.md", r"fresh data for (\d+) minutes, or (\d+) if the universe"): set(minutes),
        ("docs/machines.md", rf"and ({'|'.join(numbers)}) automations"): {numbers[len(read_automations())]},
        ("docs/reliability.md", r"below (\d+) MiB"): {f"{stack.FREE_BYTES / 2**20:.0f}"},
    }
    for (name, pattern), expected in counted.items():
        found = re.findall(pattern, Path(CHECKOUT, name).read_text())
        assert {number for each in found for number in ([each] if isinstance(each, str) else each)} == expected, name


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the checkout as a newcomer has it, with the environments that `make setup` has made."""
    copy = tmp_path_factory.mktemp("clone") / "market-data"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, copy / name)
    for name in (".venv", ".venv-store"):
        (copy / name).symlink_to(CHECKOUT / name)
    yield copy
    shutil.rmtree(copy / ".local", ignore_errors=True)


def run_make(clone: Path, target: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a make target of the clone, in an empty home directory."""
    home = clone.parent / "home"
    home.mkdir(exist_ok=True)
    path = os.environ["PATH"]
    return subprocess.run(
        ["make", target],
        cwd=clone,
        env={"HOME": str(home), "PATH": path} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.outage
def test_make_run_twice_and_table(clone: Path) -> None:
    """`make run` fills the table through the deployment, a second one finds it not modified, `make table` shows it."""
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
    assert not list((clone.parent / "home").iterdir()), "something was left in the home directory"
    assert not processes_of(clone)


@pytest.mark.outage
def test_failed_make_run_says_why(clone: Path, clock: Clock) -> None:
    """A run that did not complete ends `make run` with its one-line reason and a non-zero exit code."""
    market = Faulty(clock)
    market.plan = {"HEAD": [refuse(403, "go away")], "1": [refuse(403, "go away")]}
    with serve(market) as url:
        done = run_make(clone, "run", ESI_URL=url)
    assert done.returncode != 0
    reason = 'region 10000015: ESI answered 403 Forbidden: "go away"; not retried'
    assert done.stderr.splitlines()[0] == f"the flow run ended as Failed: {reason}"
    assert not processes_of(clone)


@pytest.mark.outage
def test_make_run_shows_bars_in_a_terminal(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the work of the states shows as bars."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("REGION", "10000002")
    monkeypatch.chdir(clone)
    said: list[bytes] = []

    def read(terminal: int) -> bytes:
        said.append(os.read(terminal, 4096))
        return said[-1]

    code = pty.spawn(["make", "run"], read, lambda _: b"")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(said).decode())
    assert os.waitstatus_to_exitcode(code) == 0, shown
    assert re.findall(r"Fetch Pages, pages ━+ .*?433/433", shown)
    assert re.findall(r"Store Records, writes ━+ ", shown)
    assert not processes_of(clone)


@pytest.mark.outage
def test_shell_finds_all(clone: Path, tmp_path: Path) -> None:
    """In `make shell` the README's commands find table, market, Prefect's server and its worker; then all stops."""
    typed = tmp_path / "typed"
    typed.write_text(f"#!/bin/sh\nset -e\n{TYPED}prefect deployment run market-data/venal --watch\n")
    typed.chmod(0o755)
    done = run_make(
        clone, "shell", SHELL=str(typed), AWS_PROFILE="production", PREFECT_API_URL="http://127.0.0.1:9/api"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MarketData-10000003 has region 10000003 of " in done.stdout
    assert "Vale of the Silent: 10000003" in done.stdout
    assert "Flow run finished successfully" in done.stdout
    assert not processes_of(clone)
    refused = run_make(clone, "shell", SHELL="/nowhere/sh")
    assert "SHELL is '/nowhere/sh', which does not run (No such file or directory): set it to a shell" in refused.stderr


@pytest.mark.outage
def test_up_is_used_from_another_shell_and_stops_at_once(clone: Path, tmp_path: Path) -> None:
    """What `make up` prints makes another shell use it; Ctrl-C ends it within five seconds, with nothing left."""
    terminal, own = pty.openpty()
    fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    made = subprocess.Popen(
        ["make", "up"], cwd=clone, env=home, stdin=own, stdout=own, stderr=own, start_new_session=True
    )
    os.close(own)
    said = ""
    while "export AWS_ENDPOINT_URL_DYNAMODB=" not in said or not said.endswith("\n\r\n"):
        said += os.read(terminal, 4096).decode()
    threading.Thread(target=drain, args=[terminal], daemon=True).start()
    assert re.search(r"Stop it +Ctrl-C", said)
    lines = re.sub(r"\r|\x1b\[[0-9;?]*[A-Za-z]", "", said).splitlines()
    assert not [line for line in lines if len(line) > 80]
    pasted = "\n".join(line for line in lines if re.match(r"(source|unset|export) ", line))
    typed = f"set -e\n{pasted}\n{TYPED}make status\n"
    other = home | {"AWS_PROFILE": "production"}
    done = subprocess.run(["bash", "-c", typed], cwd=clone, env=other, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Vale of the Silent: 10000003" in done.stdout
    assert re.search(r"^MarketData-10000003: .*\n.*; run (Completed|NotModified); by hand$", done.stdout, re.MULTILINE)
    attached = run_make(clone, "shell", SHELL="/usr/bin/env")
    assert f"{pasted.splitlines()[-1].removeprefix('export ')}\n" in attached.stdout
    os.killpg(made.pid, signal.SIGINT)  # as Ctrl-C does
    stopped_at = time.monotonic()
    made.wait()
    assert time.monotonic() - stopped_at < 5.0
    assert not processes_of(clone)


def drain(terminal: int) -> None:
    """Read what a terminal shows until its other side is closed."""
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass


def processes_of(clone: Path) -> list[str]:
    """Return the command lines of processes that run from the clone."""
    out = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if str(clone) in line]
