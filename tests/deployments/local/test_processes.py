"""Starting, checking and stopping child processes."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from deployments.local.environment import CHECKOUT
from deployments.local.processes import Child, StackError, claim_port, free_port, stop_all
from tests.support.servers import wait_for


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a child's log file."""
    return tmp_path / "child.log"


def test_dead_child_is_reported_with_the_end_of_its_log(log: Path) -> None:
    """The error for a child that has ended has its name, its exit code and the end of its log."""
    child = Child("store", [sys.executable, "-c", "print('no disk'); raise SystemExit(3)"], os.environ, log)
    child.wait()
    with pytest.raises(StackError, match=r"(?s)store ended with exit code 3; .*no disk"):
        child.check()


def test_task_may_end_with_success(log: Path) -> None:
    """A task may end with exit code 0, a server may not."""
    task = Child("deploy", [sys.executable, "-c", ""], os.environ, log, is_task=True)
    server = Child("server", [sys.executable, "-c", ""], os.environ, log)
    task.wait()
    server.wait()
    task.check()
    with pytest.raises(StackError, match="server ended with exit code 0"):
        server.check()


def test_children_stop_together(tmp_path: Path) -> None:
    """Children are terminated at the same time: here, each ends only after the other got its signal, too."""
    wait = "trap 'touch {0}; until [ -e {1} ]; do sleep 0.05; done; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    programs = [wait.format(*names) for names in (("a", "b"), ("b", "a"))]
    children = [
        Child(str(number), ["sh", "-c", f"cd {tmp_path}; {program}"], os.environ, tmp_path / f"{number}.log")
        for number, program in enumerate(programs)
    ]
    wait_for(lambda: all(child.log.read_text() for child in children), "both children")
    stop_all(children)
    assert [child.returncode for child in children] == [0, 0]


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    """A child ends even if its parent is killed."""
    parent = f"""
import os, sys
from pathlib import Path
from deployments.local.processes import Child
child = Child("sleeper", ["sleep", "600"], os.environ, Path({str(tmp_path)!r}, "log"))
print(child.pid, flush=True)
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
    """Return whether a process ends within ten seconds."""
    import select  # noqa: PLC0415

    return bool(select.select([pidfd], [], [], 10.0)[0])


def test_port_in_use_is_not_returned(store_url: str) -> None:
    """If the preferred port is in use, another one is returned."""
    used = int(store_url.rsplit(":", 1)[1])
    assert free_port(used) != used


def test_port_is_claimed_once() -> None:
    """A port that one stack has claimed is refused to another until the first ends, even if nobody listens yet."""
    port = free_port()
    with ExitStack() as one, ExitStack() as another:
        assert claim_port(port, one) == port
        assert claim_port(port, another) != port
    with ExitStack() as again:
        assert claim_port(port, again) == port
