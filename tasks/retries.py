"""Retries of states: of which failures, after how long, and what an attempt keeps for the next."""

import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.serializers import CompressedSerializer, PickleSerializer
from prefect.settings import get_current_settings
from prefect.tasks import exponential_backoff

from tasks.esi.errors import TransientError
from tasks.network import Waits
from tasks.reporting.failure import shorten_failures
from tasks.table.errors import TransientTableError

RETRIES = 5
RETRY_DELAY_SECONDS = exponential_backoff(backoff_factor=1)(RETRIES)  # 1, 2, 4, 8, 16
MAY_PASS = (TransientError, TransientTableError)
T = TypeVar("T")
R = TypeVar("R")


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry only failures that may pass by themselves."""
    return isinstance(state.data, MAY_PASS)


# Options of tasks: retries for those that use a client, and results that stay in the process.
RETRIED: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": RETRY_DELAY_SECONDS,
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": may_pass,
}
NOT_KEPT: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}

shorten_failures()  # here, because every task imports this file


class Work(Generic[T, R]):
    """The items that one mapped task run processes concurrently. A retry does only those that are left.

    Not thread-safe: worker threads return results, and never touch it.
    """

    def __init__(self, name: str, items: Iterable[T]) -> None:
        self.name = name
        self._left = dict(enumerate(items))
        self._results: dict[int, R] = {}
        self._failed_at = 0.0  # monotonic time; 0 at the first attempt

    def __str__(self) -> str:
        return self.name

    @property
    def has_failed(self) -> bool:
        """Whether this is a retry."""
        return self._failed_at > 0

    @property
    def left(self) -> list[T]:
        """The items left to do, in order."""
        return list(self._left.values())

    def do(self, function: Callable[[T], R], submit: Callable[..., Future[R]], waits: Waits) -> list[R]:
        """Call `function` for each item left, on the threads of `submit`, and return all items' results, in order.

        Raises:
            Exception: a permanent failure at once; or, once all items are tried, the first transient one.
        """
        if self._failed_at:
            waits.add(self._failed_at)  # the time since then
        futures = {number: submit(function, item) for number, item in self._left.items()}
        failures: list[Exception] = []
        try:
            for number, future in futures.items():  # not as_completed, which waits forever for cancelled futures
                try:
                    self._results[number] = future.result()
                    del self._left[number]
                except MAY_PASS as error:
                    failures.append(error)
        finally:
            for future in futures.values():
                future.cancel()
        if failures:
            self._failed_at = time.monotonic()
            raise failures[0]
        results, self._results = self._results, {}  # free the results: they are large
        return [results[number] for number in sorted(results)]


KEEP_SECONDS = 86_400.0  # failed runs are rarely retried later
FOLDER = "market-data"
OF = "-of-"  # between a snapshot's name and its region, which may differ at a retry
PACKED = CompressedSerializer(serializer=PickleSerializer(), compressionlib="zlib")


def keep_pages() -> dict[str, Any]:
    """Return the options that make a task persist what it fetches, if Prefect's settings say so."""
    if not get_current_settings().results.persist_by_default:
        return NOT_KEPT
    of = f"{{parameters[snapshot]}}{OF}{{parameters[run].source.form}}"
    return {
        "persist_result": True,
        "result_storage": find_folder(),
        "result_storage_key": f"{{flow_run.id}}/{of}/{{parameters[chunk]}}",
        "result_serializer": PACKED,
    }


def kept_snapshots() -> list[str]:
    """Return the names of the snapshots whose pages an earlier attempt of this flow run kept."""
    return sorted(folder.name.partition(OF)[0] for folder in (find_folder() / str(flow_run.id)).glob("*"))


def forget_pages() -> None:
    """Remove this flow run's kept pages, and Prefect's unused records of errors."""
    shutil.rmtree(find_folder() / str(flow_run.id), ignore_errors=True)
    for file in find_folder().glob("*"):
        with suppress(OSError):
            if file.is_file():
                file.unlink()


def forget_old_pages() -> None:
    """Remove pages kept for longer than a day."""
    for path in find_folder().glob("*"):
        with suppress(OSError):  # another run may have come first
            if path.stat().st_mtime < time.time() - KEEP_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def find_folder() -> Path:
    """Return the folder of all runs' kept pages."""
    return (get_current_settings().results.local_storage_path / FOLDER).expanduser()
