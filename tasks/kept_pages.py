"""Pages that outlive a failed run: what its chunks have fetched is kept on disk, and a retry does not fetch it again.

Off unless `PREFECT_RESULTS_PERSIST_BY_DEFAULT=true`; the folder is below `PREFECT_LOCAL_STORAGE_PATH`. Prefect stores
and finds a chunk's orders by flow run, snapshot and pages, and shows a task run that took them from there as `Cached`.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.serializers import CompressedSerializer, PickleSerializer
from prefect.settings import get_current_settings

KEEP_SECONDS = 86_400.0  # a run that nobody has retried by then is not retried any more
FOLDER = "market-data"
PACKED = CompressedSerializer(serializer=PickleSerializer(), compressionlib="zlib")


def keep_pages() -> dict[str, Any]:
    """Gives the options that make a task keep what it fetches, or not to, as Prefect's settings say."""
    if not get_current_settings().results.persist_by_default:
        return {"cache_policy": NO_CACHE, "persist_result": False}
    key = f"{FOLDER}/{{flow_run.id}}/{{parameters[snapshot]}}/{{parameters[chunk]}}"
    return {"persist_result": True, "result_storage_key": key, "result_serializer": PACKED}


def kept_snapshots(flow_run_id: str) -> list[str]:
    """Gives the names of the snapshots of which an earlier attempt of a flow run has kept pages."""
    return sorted(folder.name for folder in (find_folder() / flow_run_id).glob("*"))


def forget_pages(flow_run_id: str) -> None:
    """Removes what a flow run has kept, and what others have kept for longer than a day."""
    shutil.rmtree(find_folder() / flow_run_id, ignore_errors=True)
    for folder in find_folder().glob("*"):
        if folder.stat().st_mtime < time.time() - KEEP_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def find_folder() -> Path:
    """Gives the folder of all kept pages."""
    return get_current_settings().results.local_storage_path / FOLDER
