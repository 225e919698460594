"""How states are retried: which failures, after which waits, and what an attempt leaves to the next."""

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
from tasks.reporting.failure import say_once
from tasks.table.errors import TransientTableError

RETRIES = 5
RETRY_DELAY_SECONDS = exponential_backoff(backoff_factor=1)(RETRIES)  # 1, 2, 4, 8, 16
RETRY_JITTER_FACTOR = 0.5
MAY_PASS = (TransientError, TransientTableError)
T = TypeVar("T")
R = TypeVar("R")


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect to retry what may pass by itself, and nothing else."""
    return isinstance(state.data, MAY_PASS)


# The options of a task that uses a client. Its result stays in the process.
RETRIED: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": RETRY_DELAY_SECONDS,
    "retry_jitter_factor": RETRY_JITTER_FACTOR,
    "retry_condition_fn": may_pass,
}
NOT_KEPT: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}

say_once()  # here, since every flow's states come by this file


class Work(Generic[T, R]):
    """What one mapped task run has to do, item by item, side by side. A retry does only what is left.

    It belongs to the thread of its task run: the threads that do the work return their results and never touch it.
    """

    def __init__(self, name: str, items: Iterable[T]) -> None:
        self.name = name
        self._left = dict(enumerate(items))
        self._results: dict[int, R] = {}
        self._failed_at = 0.0  # monotonic time; 0 at the first attempt

    def __str__(self) -> str:
        return self.name

    @property
    def left(self) -> list[T]:
        """The items that are not done, in order."""
        return list(self._left.values())

    def do(self, function: Callable[[T], R], submit: Callable[..., Future[R]], waits: Waits) -> list[R]:
        """Call `function` for each item that is left, and return all items' results, in order.

        Args:
            function: does one item.
            submit: runs it on another thread.
            waits: the time since a failed attempt is added to them.

        Raises:
            Exception: a failure that cannot pass, at once; or, when all others are done, the first that may.
        """
        if self._failed_at:
            waits.add(self._failed_at)
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
        results, self._results = self._results, {}  # not held here any longer: they are large
        return [results[number] for number in sorted(results)]


KEEP_SECONDS = 86_400.0  # a run that nobody has retried by then is not retried any more
FOLDER = "market-data"
OF = "-of-"  # between a snapshot's name and its market, which a retry may find changed
PACKED = CompressedSerializer(serializer=PickleSerializer(), compressionlib="zlib")


def keep_pages() -> dict[str, Any]:
    """Return the options that make a task keep what it fetches, or not to, as Prefect's settings say."""
    if not get_current_settings().results.persist_by_default:
        return {"cache_policy": NO_CACHE, "persist_result": False}
    key = f"{{flow_run.id}}/{{parameters[snapshot]}}{OF}{{parameters[snapshot].region_id}}/{{parameters[chunk]}}"
    return {
        "persist_result": True,
        "result_storage": find_folder(),
        "result_storage_key": key,
        "result_serializer": PACKED,
    }


def kept_snapshots() -> list[str]:
    """Return the names of the snapshots of which an earlier attempt of this flow run has kept pages."""
    return sorted(folder.name.partition(OF)[0] for folder in (find_folder() / str(flow_run.id)).glob("*"))


def forget_pages() -> None:
    """Remove what this flow run has kept, and Prefect's records of errors, which nobody reads."""
    shutil.rmtree(find_folder() / str(flow_run.id), ignore_errors=True)
    for file in find_folder().glob("*"):
        with suppress(OSError):
            if file.is_file():
                file.unlink()


def forget_old_pages() -> None:
    """Remove what runs have left for longer than a day."""
    for path in find_folder().glob("*"):
        with suppress(OSError):  # another run may have been quicker
            if path.stat().st_mtime < time.time() - KEEP_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def find_folder() -> Path:
    """Return the folder of all kept pages."""
    return (get_current_settings().results.local_storage_path / FOLDER).expanduser()
