"""Measure one run of one contestant in a fresh process: takes a job and prints its figures, both as JSON."""

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

Figures = dict[str, float]  # by name; seconds since the call, MiB above what was resident at the call


class Job(msgspec.Struct, frozen=True):
    """A run to measure: the process's first call, unless it is warmed up."""

    contestant: str  # a module of this package that has `run`
    region_ids: tuple[int, ...]
    table_name: str  # with {region_id}
    fetch_concurrency: int
    warm_region_id: int | None = None  # filled first, without measuring


def main() -> None:
    """Run the job that is the argument, and print its figures."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps logs apart from the figures
    job = msgspec.json.decode(sys.argv[1], type=Job)
    run = importlib.import_module(f"benchmarks.{job.contestant}").run
    if job.warm_region_id:
        run([job.warm_region_id], job.table_name, job.fetch_concurrency)
        drain()
    figures = measure_run(lambda: run(list(job.region_ids), job.table_name, job.fetch_concurrency))
    output.write(msgspec.json.encode(figures))
    output.flush()


def measure_run(run: Callable[[], None]) -> Figures:
    """Return a run's seconds, CPU seconds (including what Prefect sends after it) and peak memory."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    base_mib = read_mib("VmRSS")
    called_at, started, used = time.time(), time.perf_counter(), time.process_time()
    run()
    seconds = time.perf_counter() - started
    drain()
    cpu_seconds, peak_mib = time.process_time() - used, read_mib("VmHWM") - base_mib
    return {"called at": called_at, "seconds": seconds, "CPU": cpu_seconds, "peak MiB": peak_mib}


def drain() -> None:
    """Wait until Prefect's threads have sent the run's events and logs."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 (the plain script must not import Prefect)
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=60)


def read_mib(name: str) -> float:
    """Return a memory figure from this process's status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
