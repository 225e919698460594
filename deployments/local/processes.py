"""Child processes that never outlive this one, however it ends."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
STOP_SECONDS = 10.0
LOG_LINES = 15
_prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: None)


class ChildError(Exception):
    """A child process ended unexpectedly."""


class Child:
    """A running program, with its output in a log file.

    Args:
        name: for messages.
        command: program and arguments.
        environ: its whole environment.
        log: where its output goes; overwritten.
        is_task: whether it is expected to end by itself.
    """

    def __init__(
        self, name: str, command: list[str], environ: Mapping[str, str], log: Path, *, is_task: bool = False
    ) -> None:
        self.name = name
        self.log = log
        self._is_task = is_task
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 (our own commands)
                command,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only this program, which stops its children in order
                preexec_fn=die_with_parent,  # noqa: PLW1509 (the only other thread prints)
            )

    def is_running(self) -> bool:
        """Return whether the child is running."""
        return self.process.poll() is None

    def has_succeeded(self) -> bool:
        """Return whether the child has ended with exit code 0."""
        return self.process.poll() == 0

    def check(self) -> None:
        """Check that the child is running, or is a task that has succeeded.

        Raises:
            ChildError: it is not; with the last lines of its log.
        """
        code = self.process.poll()
        if code is not None and not (self._is_task and code == 0):
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise ChildError("\n".join([f"{self.name} ended with exit code {code}; the end of {self.log}:", *lines]))

    def stop(self) -> None:
        """Terminate the child, and kill it if it does not end in time."""
        stop_all([self])


def stop_all(children: Sequence[Child]) -> None:
    """Terminate children, all at once, and kill those that do not end in time."""
    running = [child.process for child in children if child.is_running()]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with_parent() -> None:
    """Have the kernel terminate this process when its parent ends, even if the parent is killed (Linux only)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that `stop_orphans` finds them (Linux only)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def stop_orphans(known: set[int]) -> None:
    """Stop adopted processes, such as flow runs of a worker that has ended.

    Args:
        known: children to leave alone.
    """
    deadline = time.monotonic() + STOP_SECONDS
    terminated: set[int] = set()
    while orphans := child_pids() - known:
        late = time.monotonic() > deadline
        for pid in orphans if late else orphans - terminated:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        terminated |= orphans
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


def child_pids() -> set[int]:
    """Return the ids of this process's children (Linux; elsewhere none)."""
    files = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in files for pid in file.read_text().split()}


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
