"""Measures runs of one contestant, in a process of its own: a job a line comes in as JSON, its measure goes out."""

import importlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import msgspec

from benchmarks.cpu_profile import Profile, profile_cpu

KIB = 1024  # the unit of /proc/self/status


class Job(msgspec.Struct, frozen=True):
    """A run to be measured; or one before it, not looked at, that warms what a second run finds warm."""

    contestant: str  # a module of this package with `run`
    region_id: int
    table_name: str
    fetch_concurrency: int
    is_profiled: bool = False


class Measure(msgspec.Struct, frozen=True):
    """What a run took."""

    seconds: float  # from call to return
    cpu_seconds: float  # of the process, with what is sent to Prefect after the return
    peak_bytes: int | None  # resident, above what was resident before; None after another run in the same process
    profile: Profile | None = None


def main() -> None:
    """Do one job after the other."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed
    for line in sys.stdin:
        job = msgspec.json.decode(line, type=Job)
        answers.write(f"{msgspec.json.encode(do(job)).decode()}\n")
        answers.flush()


def do(job: Job) -> Measure:
    """Return what a job takes."""
    contestant = importlib.import_module(f"benchmarks.{job.contestant}")
    return measure_run(
        lambda: contestant.run(job.region_id, job.table_name, job.fetch_concurrency), is_profiled=job.is_profiled
    )


def measure_run(run: Callable[[], None], *, is_profiled: bool) -> Measure:
    """Return what a run takes."""
    base_bytes = forget_peak()
    with profile_cpu() if is_profiled else nullcontext() as profile:
        started, used = time.perf_counter(), time.process_time()
        run()
        seconds = time.perf_counter() - started
        send_rest()
        cpu_seconds = time.process_time() - used
    return Measure(seconds, cpu_seconds, read_memory("VmHWM") - base_bytes, profile)


def send_rest() -> None:
    """Wait until Prefect's threads have sent the run's events and logs: their CPU is the run's too."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 (the plain script must not import Prefect)
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=60)


def forget_peak() -> int:
    """Make the kernel count the peak of resident memory anew, and return what is resident, in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_memory("VmRSS")


def read_memory(name: str) -> int:
    """Return a line of this process's status, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
