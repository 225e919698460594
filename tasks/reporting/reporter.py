"""Reports on a run in Prefect: log lines, progress, tags, events, artifacts.

Reporting never fails a run or delays its end: background threads call Prefect's API, only the process waits for them,
and failed calls are logged as warnings.
"""

import contextvars
import threading
from collections.abc import Callable
from datetime import datetime
from queue import SimpleQueue
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

from opentelemetry import trace
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks.catalogue.names import name_region, regions
from tasks.reporting.progress import Progress, Timing, show_progress
from tasks.reporting.summary import Subject, counted, find_subject

FRESH_SECONDS = 900.0  # older data are stale: three snapshots

P = ParamSpec("P")
R = TypeVar("R")


class Reporter(Timing):
    """Names a flow run and reports on it. Use it as a context manager in the flow; queued calls are made later."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[Callable[[SyncPrefectClient], object] | None] = SimpleQueue()  # None is the last
        name = name_run()  # with `flow_run_name`, flows would wait for the API first
        if (context := FlowRunContext.get()) and context.flow_run:
            context.flow_run.name = name
        self._logger = get_run_logger()
        span = trace.get_current_span()
        span.update_name(name)
        span.set_attribute("prefect.run.name", name)
        self.later(SyncPrefectClient.update_flow_run, UUID(flow_run.id), name=name)

    def __enter__(self) -> Self:
        report_in_background(self._make_calls)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(well=kind is None)
        self._calls.put(None)

    def show(self, progress: Progress, news: str) -> None:
        """Log that a state begins or ends, and show its work as a progress artifact."""
        self._logger.info("%s %s", progress.name, news)
        if progress.total and not progress.ended.is_set():
            self.later(show_progress, progress)

    def tag(self, last_modified: datetime) -> None:
        """Tag the flow run with its region or source, and its snapshot."""
        subject = find_subject(flow_run.parameters)
        added = [f"{subject.kind}:{subject.id}", f"snapshot:{last_modified:%Y-%m-%dT%H:%M:%SZ}"]
        tags = list(dict.fromkeys([*flow_run.tags, *added]))
        self.later(SyncPrefectClient.update_flow_run, UUID(flow_run.id), tags=tags)

    def later(
        self, function: Callable[Concatenate[SyncPrefectClient, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Queue a call; an error becomes a warning."""
        self._calls.put(lambda client: attempt(function, client, *args, **kwargs))

    def _make_calls(self, client: SyncPrefectClient) -> None:
        for call in iter(self._calls.get, None):
            call(client)


def report_in_background(
    function: Callable[Concatenate[SyncPrefectClient, P], object], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Call a function in this run's context on a thread that outlives the run; an error becomes a warning."""

    def call() -> None:
        with get_client(httpx_settings={}, sync_client=True) as client:  # a new one: the run closes its own
            attempt(function, client, *args, **kwargs)

    threading.Thread(target=contextvars.copy_context().run, args=[call], name="reporter").start()


def attempt(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
    """Call a function that reports on a run; if it raises, log a warning and return None."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 (reporting must not fail a run)
        why = f"{function.__name__}: {type(error).__name__}: {error}"
        get_run_logger().warning("not reported to Prefect: %s", why)
        return None


def name_run() -> str:
    """Return a flow run's name, by its scheduled time: `10000002 The Forge · 2026-11-24 03:05`, `113 regions · …`."""
    given = flow_run.parameters
    kind, market_id, what = find_subject(given)
    if "region_ids" in given:
        what = counted(len(given["region_ids"] or given.get("markets") or regions()), "region")
    elif kind == "region":
        what = name_region(int(market_id))
    return f"{what} · {flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"


def send_event(event: str, subject: Subject, payload: dict[str, Any], kept_by: str = "schedule") -> None:
    """Emit `market.snapshot.EVENT`; for a region with an age in the payload also `market-data.fresh` or `.stale`.

    A run may complete while the table's data stay old. Those kept by `universe` are stale later than by `schedule`.
    """
    resource = subject.resource | {"market.kept-by": kept_by}
    emit_event(f"market.snapshot.{event}", resource, payload=payload)
    if subject.kind == "region" and (age_seconds := payload.get("age_seconds")) is not None:
        freshness = "fresh" if abs(age_seconds) <= FRESH_SECONDS else "stale"
        emit_event(f"market-data.{freshness}", resource, payload={"age_seconds": age_seconds})
