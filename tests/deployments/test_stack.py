"""The embedded stack: what it is given, what it starts, and that nothing of it stays."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.local import stack
from deployments.local.environment import (
    CHECKOUT,
    Options,
    aws_environment,
    base_environment,
    read_options,
)
from deployments.local.market.market import refuse
from deployments.local.market.server import serve
from deployments.local.processes import Child, ChildError, free_port
from deployments.local.stack import FullDiskError, check_disk
from tests.conftest import Clock
from tests.flows.test_failures import Faulty

USER = {
    "AWS_PROFILE": "production",
    "AWS_SECRET_ACCESS_KEY": "planted",
    "AWS_ENDPOINT_URL": "https://dynamodb.eu-west-1.amazonaws.com",
    "PREFECT_API_URL": "https://api.prefect.cloud/api",
    "PREFECT_API_KEY": "planted",
    "PYTHONPATH": "/elsewhere",
    "HTTP_PROXY": "http://proxy:3128",
    "NO_PROXY": "intranet",
    "HOME": "/home/user",
    "PATH": "/usr/bin",
}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, Options(10000015, "local", ""), id="defaults"),
        pytest.param({"REGION": "10000002"}, Options(10000002, "local", ""), id="region"),
        pytest.param({"STORE": "local", "REGION": " "}, Options(10000015, "local", ""), id="blank"),
        pytest.param(
            {"ESI_URL": "https://esi.evetech.net", "STORE": "aws"},
            Options(10000015, "aws", "https://esi.evetech.net"),
            id="real market, real account",
        ),
        pytest.param(
            {"STORE": "aws", "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:8000"},
            Options(10000015, "aws", ""),
            id="an emulator of one's own",
        ),
    ],
)
def test_options_are_read(environ: dict[str, str], expected: Options) -> None:
    """REGION, STORE and ESI_URL say what is run, with Venal and the local store by default."""
    assert read_options(environ) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({"REGION": "Jita"}, "REGION is 'Jita': give a region's id", id="name"),
        pytest.param({"REGION": "10999999"}, "REGION is '10999999': give a region's id", id="unknown"),
        pytest.param({"REGION": "5", "ESI_URL": "https://esi.evetech.net"}, "REGION is '5'", id="no region"),
        pytest.param({"STORE": "gcp"}, "STORE is 'gcp': give local, .* or aws", id="store"),
        pytest.param({"ESI_URL": "esi.evetech.net"}, "ESI_URL is 'esi.evetech.net': give an http", id="url"),
        pytest.param({"ESI_URL": "http://esi.evetech.net"}, "plain http is for this machine only", id="plain http"),
        pytest.param({"STORE": "aws"}, "would fill your account with made-up orders", id="made-up orders"),
    ],
)
def test_bad_options_are_refused(environ: dict[str, str], message: str) -> None:
    """A bad value is refused in one line that names it and what to give."""
    with pytest.raises(ValueError, match=message):
        read_options(environ)


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
    [("deployments.local", "{run,up,table,status,report}"), ("deployments.local.market", "--every")],
)
def test_help_explains(name: str, options: str) -> None:
    """`--help` names the choices."""
    done = subprocess.run(
        [sys.executable, "-m", name, "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert options in done.stdout


def test_user_settings_do_not_reach_the_stack() -> None:
    """No AWS, Prefect or Python setting of the user's is inherited; a proxy is, but not for this machine."""
    environ = base_environment(USER) | aws_environment(Options(1, "local", ""), "http://127.0.0.1:1", USER)
    assert "planted" not in environ.values()
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL", "PREFECT_API_URL", "PYTHONPATH"} & environ.keys()
    assert environ["AWS_ENDPOINT_URL_DYNAMODB"] == "http://127.0.0.1:1"
    assert environ["AWS_SHARED_CREDENTIALS_FILE"] == environ["AWS_CONFIG_FILE"] == os.devnull
    assert (environ["HTTP_PROXY"], environ["NO_PROXY"]) == ("http://proxy:3128", "intranet,127.0.0.1,localhost")


def test_own_account_is_left_as_it_is() -> None:
    """With STORE=aws boto3 finds just what the user has set."""
    environ = aws_environment(Options(1, "aws", ""), "", USER)
    assert environ == {name: value for name, value in USER.items() if name.startswith("AWS_")}


def test_made_up_and_real_orders_never_meet() -> None:
    """Each market has a store of its own, so that a table is never up to date with another market's orders."""
    made_up, real = Options(10000015, "local", ""), Options(10000015, "local", "https://esi.evetech.net")
    assert (made_up.store_folder.name, real.store_folder.name) == ("made-up", "https-esi.evetech.net")


def test_what_was_asked_for_is_told_again() -> None:
    """The commands that are told for next have the same settings."""
    assert not Options(10000015, "local", "").given
    given = Options(10000002, "aws", "https://esi.evetech.net").given
    assert given == "REGION=10000002 STORE=aws ESI_URL=https://esi.evetech.net "


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a child's output goes."""
    return tmp_path / "child.log"


def test_dead_child_is_reported_with_its_last_words(log: Path) -> None:
    """A child that ends is named, with its exit code and the end of its log."""
    child = Child("store", [sys.executable, "-c", "print('no disk'); raise SystemExit(3)"], os.environ, log)
    child.process.wait()
    with pytest.raises(ChildError, match=r"(?s)store ended with exit code 3; .*no disk"):
        child.check()


def test_task_may_end_with_success(log: Path) -> None:
    """A child that is a task ends well with exit code 0; a server does not."""
    task = Child("deploy", [sys.executable, "-c", ""], os.environ, log, is_task=True)
    server = Child("server", [sys.executable, "-c", ""], os.environ, log)
    task.process.wait()
    server.process.wait()
    task.check()
    with pytest.raises(ChildError, match="server ended with exit code 0"):
        server.check()


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    """A child stops even if its parent is killed outright."""
    parent = f"""
import os, sys
from pathlib import Path
from deployments.local.processes import Child
child = Child("sleeper", ["sleep", "600"], os.environ, Path({str(tmp_path)!r}, "log"))
print(child.process.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        gone = os.pidfd_open(pid)
        process.kill()
    assert is_readable(gone), "the child outlived its parent"
    os.close(gone)


def is_readable(pidfd: int) -> bool:
    """Tells whether a process ends within ten seconds."""
    import select  # noqa: PLC0415

    return bool(select.select([pidfd], [], [], 10.0)[0])


def test_full_disk_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk with too little room is refused, with how much there is and what to do."""
    check_disk(tmp_path)
    monkeypatch.setattr(stack, "FREE_BYTES", 2**60)
    with pytest.raises(FullDiskError, match=r"has \d+ MiB left, the stack needs \d+ MiB: make room, or `make clean`"):
        check_disk(tmp_path)


def test_taken_port_is_passed_over(store_url: str) -> None:
    """A port that somebody has is not the one that is given."""
    taken = int(store_url.rsplit(":", 1)[1])
    assert free_port(taken) != taken


@pytest.fixture(scope="module")
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
    """Runs a make target of the clone, in an empty home directory."""
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
    assert "Flow run finished successfully in 'Completed'" in first.stdout
    assert "Fetch Pages: 1 of 1 pages" in first.stdout
    assert "by a state machine" in first.stdout
    assert "base64" not in first.stdout
    assert "MarketData-10000003: Vale of the Silent (10000003)" in first.stdout
    second = run_make(clone, "run", REGION=region)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "not modified: MarketData-10000003 has region 10000003" in second.stdout or "records (" in second.stdout
    table = run_make(clone, "table", REGION=region)
    assert table.returncode == 0, table.stdout + table.stderr
    assert "price (ISK)" in table.stdout
    assert not list((clone.parent / "home").iterdir()), "something was left in the home directory"
    assert not processes_of(clone)


@pytest.mark.outage
def test_failed_make_run_says_why(clone: Path, clock: Clock) -> None:
    """A run that did not complete ends `make run` with its one-line reason and a non-zero exit code."""
    market = Faulty(clock)
    market.plan = {"HEAD": [refuse(403, "go away")]}
    with serve(market) as url:
        done = run_make(clone, "run", ESI_URL=url)
    assert done.returncode != 0
    reason = "region 10000015: ESI answered 403 Forbidden; this is not asked again"
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


def processes_of(clone: Path) -> list[str]:
    """Gives the command lines of processes that run from the clone."""
    out = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if str(clone) in line]
