"""Processes with all that they have started: the CPU that they took, and their end all at once (Linux)."""

import os
import signal
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # a second


def find_tree(pid: int) -> list[int]:
    """Return a process and its descendants, parents first."""
    found = [pid]
    for parent in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def tree_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and all that it has started, including those that have ended since."""
    return sum(own_seconds(process) for process in find_tree(pid))


def own_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended, 0 if it has ended itself."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS


def machine_seconds() -> float:
    """Return the CPU seconds that all processes of this machine together have taken."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest)) / TICKS


def stop_tree(pid: int) -> list[int]:
    """Stop a process and its descendants, so that none starts or ends meanwhile, and return them."""
    stopped: list[int] = []
    while new := [process for process in find_tree(pid) if process not in stopped]:
        signal_all(new, signal.SIGSTOP)
        stopped += new
    return stopped


def kill_all(pids: list[int]) -> None:
    """Kill processes outright."""
    signal_all(pids, signal.SIGKILL)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
