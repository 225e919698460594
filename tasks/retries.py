"""Which failures Prefect retries, how often and after how long: the same for every state that uses a client."""

from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from tasks.esi.client import TransientError
from tasks.reporting.failure import say_once
from tasks.table.client import TransientTableError

RETRIES = 5
RETRY_DELAY_SECONDS = exponential_backoff(backoff_factor=1)(RETRIES)  # 1, 2, 4, 8, 16
RETRY_JITTER_FACTOR = 0.5


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tells Prefect to retry what may pass by itself, and nothing else."""
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
