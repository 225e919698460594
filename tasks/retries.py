"""Which failures Prefect retries, how often and after how long: the same for every state that uses a client."""

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.serializers import CompressedSerializer, PickleSerializer
from prefect.settings import get_current_settings
from prefect.tasks import exponential_backoff

from tasks.esi.errors import TransientError
from tasks.reporting.failure import say_once
from tasks.table.errors import TransientTableError

RETRIES = 5
RETRY_DELAY_SECONDS = exponential_backoff(backoff_factor=1)(RETRIES)  # 1, 2, 4, 8, 16
RETRY_JITTER_FACTOR = 0.5


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect to retry what may pass by itself, and nothing else."""
    return isinstance(state.data, TransientError | TransientTableError)


# The options of a task that uses a client. Its result stays in the process.
RETRIED: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": RETRY_DELAY_SECONDS,
    "retry_jitter_factor": RETRY_JITTER_FACTOR,
    "retry_condition_fn": may_pass,
}
NOT_KEPT: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}

say_once()  # here, since every flow's states come by this file


KEEP_SECONDS = 86_400.0  # a run that nobody has retried by then is not retried any more
FOLDER = "market-data"
OF = "-of-"  # between a snapshot's name and its region, which a retry may find changed
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


def kept_snapshots(flow_run_id: str) -> list[str]:
    """Return the names of the snapshots of which an earlier attempt of a flow run has kept pages."""
    return sorted(folder.name.partition(OF)[0] for folder in (find_folder() / flow_run_id).glob("*"))


def forget_pages(flow_run_id: str) -> None:
    """Remove what a flow run has kept, and Prefect's records of errors, which nobody reads."""
    shutil.rmtree(find_folder() / flow_run_id, ignore_errors=True)
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
