"""The end of a run: its final state, and the reports after it."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar, cast

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed

from tasks.reporting.artifacts import write_movers, write_summary
from tasks.reporting.reporter import attempt, report_in_background, send_event
from tasks.reporting.summary import AnySummary, SourceSummary, Summary
from tasks.reporting.universe_summary import UniverseSummary
from tasks.table.records import Changes

S = TypeVar("S", Summary, SourceSummary)


class Outcome(NamedTuple):
    """What a flow run did."""

    result: AnySummary | UniverseSummary  # what the flow returns
    summaries: Sequence[AnySummary]  # one; of a round those of the regions that did not fail
    changes: list[Changes]  # of the written markets; empty if the table already had the snapshot


outcome: ContextVar[Outcome] = ContextVar("outcome")  # of the flow run: Prefect calls hooks in the same context


def end_run(summary: S, changes: list[Changes], kept_by: str) -> S:
    """Save what the run did for its flow's hooks, send it as an event, and return a final state for a flow or task run.

    The state's message is the summary's line. Prefect unwraps the state: callers get the summary.
    """
    outcome.set(Outcome(summary, [summary], changes))
    event, name = ("not-modified", "NotModified") if summary.not_modified else ("stored", "Completed")
    attempt(send_event, event, summary.subject, summary.model_dump(mode="json"), kept_by)
    return cast("S", Completed(name=name, message=summary.line, data=summary))


def keep_summary(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's names)
    """Return the summary even if Prefect's confirmation of the final state was lost.

    Prefect then sends the state again, and gets the recorded one back without data.
    """
    if state.data is None:
        state.data = outcome.get().result


def report_outcome(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's)
    """Create the artifacts of a run that stored something."""
    _result, summaries, changes = outcome.get()
    if changes:
        report_in_background(report_changes, summaries[0], changes)


def report_changes(client: SyncPrefectClient, summary: AnySummary, changes: list[Changes]) -> None:
    """Create the artifacts: the summary; of a market with its pictures, and the types that moved most."""
    from tasks.reporting.history import draw_history  # noqa: PLC0415 (Pillow: only after the run's end)

    pictures: dict[str, bytes] = {}
    if isinstance(summary, Summary):
        attempt(write_movers, client, summary, changes)
        pictures = attempt(draw_history, client, summary) or {}
    attempt(write_summary, client, summary, pictures)
