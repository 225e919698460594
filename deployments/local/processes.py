"""Child processes that never outlive this one, however it ends."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
STOP_SECONDS = 10.0
LOG_LINES = 15
TICKS = os.sysconf("SC_CLK_TCK")  # a second
_prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: None)


class StackError(Exception):
    """The stack cannot do what it is asked to; the message says why."""


class Child(subprocess.Popen[bytes]):
    """A running program; `environ` is its whole environment, and its output replaces what is in the file `log`."""

    def __init__(
        self, name: str, command: list[str], environ: Mapping[str, str], log: Path, *, is_task: bool = False
    ) -> None:
        self.name, self.log = name, log
        self.is_task = is_task  # whether it is expected to end by itself
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            super().__init__(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only this program, which stops its children in order
                preexec_fn=die_with_parent,
            )

    def has_succeeded(self) -> bool:
        """Return whether the child has ended with exit code 0."""
        return self.poll() == 0

    def check(self) -> None:
        """Raise StackError, with the end of the log, unless the child is running or is a task that has succeeded."""
        if self.poll() is not None and not (self.is_task and self.has_succeeded()):
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            ended = f"{self.name} ended with exit code {self.returncode}; the end of {self.log}:"
            raise StackError("\n".join([ended, *lines]))

    def kill_tree(self) -> int:
        """Kill the child with all that it has started, as a machine that dies would; return how many processes."""
        stopped: list[int] = []
        while new := [pid for pid in find_tree(self.pid) if pid not in stopped]:  # none starts meanwhile
            signal_all(new, signal.SIGSTOP)
            stopped += new
        signal_all(stopped, signal.SIGKILL)
        self.wait()
        return len(stopped)

    def used_seconds(self) -> float:
        """Return the CPU seconds of the child and all that it has started, including those that have ended (Linux)."""
        ticks = 0
        for pid in find_tree(self.pid):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        return ticks / TICKS


def stop_all(children: Sequence[Child]) -> None:
    """Terminate children, all at once, and kill those that do not end in time."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        child.kill()  # does nothing if it has ended
        child.wait()


def die_with_parent() -> None:
    """Have the kernel terminate this process when its parent ends, even if the parent is killed (Linux only)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that `stop_orphans` finds them (Linux only)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def stop_orphans(known: set[int]) -> None:
    """Stop adopted processes, such as flow runs of a worker that has ended; leave the known children alone."""
    deadline = time.monotonic() + STOP_SECONDS
    terminated: set[int] = set()
    while orphans := child_pids() - known:
        signal_all(orphans - terminated, signal.SIGTERM)
        if time.monotonic() > deadline:
            signal_all(orphans, signal.SIGKILL)
        terminated |= orphans
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


def child_pids(pid: int | str = "self") -> set[int]:
    """Return the processes whose parent is this one, or another one (Linux; elsewhere none)."""
    pids: set[int] = set()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the parent, or one of its threads, has just ended
            pids |= {int(child) for child in file.read_text().split()}
    return pids


def find_tree(pid: int) -> list[int]:
    """Return a process and its descendants, parents first (Linux)."""
    found = [pid]
    for parent in found:
        found += sorted(child_pids(parent))
    return found


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def claim_port(preferred: int, held: ExitStack) -> int:
    """Return a free port: the preferred one, unless another stack has claimed it until its `held` is closed (Linux)."""
    claim = held.enter_context(socket.socket(socket.AF_UNIX))
    with suppress(OSError):
        claim.bind(f"\0market-data-{preferred}")
        return free_port(preferred)
    return free_port()


def free_port(preferred: int = 0) -> int:
    """Return a free port of 127.0.0.1, the preferred one if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignores closed connections
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return free_port()
        port: int = probe.getsockname()[1]
        return port
