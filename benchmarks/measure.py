"""Measures one run of one contestant in a process of its own: a job comes in as JSON, its figures go out."""

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

Figures = dict[str, float]  # by name; seconds are from the call on, MiB above what was resident at the call


class Job(msgspec.Struct, frozen=True):
    """A run to be measured: the first call in the process, unless it is warmed up."""

    contestant: str  # a module of this package with `run`
    region_ids: tuple[int, ...]
    table_name: str  # {region_id} in it is filled in
    fetch_concurrency: int
    warm_region_id: int | None = None  # done before, and not measured


def main() -> None:
    """Do the job."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    run = importlib.import_module(f"benchmarks.{job.contestant}").run
    if job.warm_region_id:
        run([job.warm_region_id], job.table_name, job.fetch_concurrency)
        send_rest()
    figures = measure_run(lambda: run(list(job.region_ids), job.table_name, job.fetch_concurrency))
    answers.write(msgspec.json.encode(figures))
    answers.flush()


def measure_run(run: Callable[[], None]) -> Figures:
    """Return what a run takes: until it returns, CPU with what is sent to Prefect later, and the peak of its memory."""
    Path("/proc/self/clear_refs").write_text("5")  # makes the kernel count the peak from here (Linux)
    base_mib = read_mib("VmRSS")
    called_at, started, used = time.time(), time.perf_counter(), time.process_time()
    run()
    seconds = time.perf_counter() - started
    send_rest()
    cpu_seconds, peak_mib = time.process_time() - used, read_mib("VmHWM") - base_mib
    return {"called at": called_at, "seconds": seconds, "CPU": cpu_seconds, "peak MiB": peak_mib}


def send_rest() -> None:
    """Wait until Prefect's threads have sent the run's events and logs: their CPU is the run's too."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 (the plain script must not import Prefect)
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=60)


def read_mib(name: str) -> float:
    """Return a line of this process's status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
