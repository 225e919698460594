"""Which failures Prefect retries."""

import pytest
from prefect import task
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed

from tasks.esi.errors import EsiError, NotFoundError, RateLimitedError, RefusedError, TransientError
from tasks.retries import RETRIES, RETRY_DELAY_SECONDS, may_pass
from tasks.table.errors import ConditionError, MissingTableError, TableError, TransientTableError
from tasks.table.guards import ShrinkError
from tasks.table.lease import LeaseHeldError, LeaseLostError


@task
def some_task() -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransientError("busy"), True),
        (RateLimitedError("limited", "ESI 429", 1.0), True),
        (TransientTableError("throttled"), True),
        (EsiError("?"), False),
        (RefusedError("no"), False),
        (NotFoundError("gone"), False),
        (TableError("denied"), False),
        (MissingTableError("missing"), False),
        (ConditionError("changed"), False),
        (LeaseHeldError("held"), False),
        (LeaseLostError("lost"), False),
        (ShrinkError("shrunk"), False),
        (ValueError("bad"), False),
    ],
)
def test_only_transient_failures_are_retried(error: Exception, *, expected: bool) -> None:
    """Timeouts, broken responses, limits and throttling are retried; refusals, guards and mistakes are not."""
    state: State[object] = Failed(data=error)
    run = TaskRun.model_construct()
    assert may_pass(some_task, run, state) is expected


def test_retries_are_bounded() -> None:
    """There are five retries, each after twice the wait of the one before."""
    assert RETRIES == 5
    assert RETRY_DELAY_SECONDS == [1, 2, 4, 8, 16]
