"""Where a process's CPU goes, over all of its threads, which neither cProfile nor pyinstrument shows at once.

A thread of its own looks at the others every few milliseconds, and gives the CPU that each has used since then to the
function that it is in (Linux).
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from types import FrameType

import msgspec

SAMPLE_SECONDS = 0.005  # more often, and the threads get in each other's way more than they do without a sampler
OURS = ("benchmarks", "flows", "tasks")

Shares = dict[str, float]  # CPU seconds by name


class Profile(msgspec.Struct, frozen=True):
    """CPU seconds by place, three ways."""

    packages: Shares = msgspec.field(default_factory=lambda: defaultdict(float))  # by the innermost function's
    functions: Shares = msgspec.field(default_factory=lambda: defaultdict(float))  # by the innermost function
    steps: Shares = msgspec.field(default_factory=lambda: defaultdict(float))  # by this project's innermost function

    def add(self, frame: FrameType, cpu_seconds: float) -> None:
        """Add what a thread has used that is at `frame`."""
        for shares, name in (
            (self.packages, package_of(frame)),
            (self.functions, f"{package_of(frame)}: {frame.f_code.co_qualname}"),
            (self.steps, step_of(frame)),
        ):
            shares[name] = shares.get(name, 0.0) + cpu_seconds


@contextmanager
def profile_cpu() -> Iterator[Profile]:
    """Profile all threads of this process until the block ends."""
    profile, done = Profile(), threading.Event()
    sampler = threading.Thread(target=sample_until, args=(done, profile), name="sampler")
    sampler.start()
    try:
        yield profile
    finally:
        done.set()
        sampler.join()


def sample_until(done: threading.Event, profile: Profile) -> None:
    """Add samples of all other threads to a profile."""
    used = thread_times()
    while not done.wait(SAMPLE_SECONDS):
        frames, now = sys._current_frames(), thread_times()  # noqa: SLF001 (the only way to see other threads)
        for thread, seconds in now.items():
            spent = seconds - used.get(thread, 0.0)
            if spent > 0 and thread in frames and thread != threading.get_ident():
                profile.add(frames[thread], spent)
        used = now


def thread_times() -> dict[int, float]:
    """Return the CPU seconds of each running thread by its ident."""
    times: dict[int, float] = {}
    for thread in threading.enumerate():
        if thread.ident is not None:
            try:
                times[thread.ident] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            except OSError:
                continue  # it has just ended
    return times


def package_of(frame: FrameType) -> str:
    """Name the package of a function: the third party's, this project's own, or `python`."""
    parts = PurePath(frame.f_code.co_filename).with_suffix("").parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    return ".".join(parts[-2:]) if len(parts) > 1 and parts[-2] in OURS else "python"


def step_of(frame: FrameType) -> str:
    """Name this project's innermost function on a stack, or the outermost package where there is none."""
    at: FrameType | None = frame
    outermost = "python"
    while at:
        package = package_of(at)
        if package.startswith(OURS) and not package.startswith("benchmarks.measure"):
            return f"{package}.{at.f_code.co_name}"
        outermost = package if package != "python" and not package.startswith(OURS) else outermost
        at = at.f_back
    return f"{outermost}'s own threads"
