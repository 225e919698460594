"""Reports failures: one of this project's errors is logged once, in one sentence, without a traceback."""

import logging
import re
import traceback
from typing import Any

from prefect import Flow, State
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ParameterTypeError

from tasks.esi.errors import EsiError
from tasks.reporting.artifacts import create_artifact
from tasks.reporting.reporter import attempt, name_run, report_in_background, send_event
from tasks.reporting.summary import find_subject
from tasks.table.errors import TableError
from tasks.table.guards import ShrinkError

OURS = {"deployments", "flows", "tasks"}
REASON = "failed: "
REPEATED = re.compile(r"(Finished in state Failed)\(.(Task run|Flow run) encountered an exception")


def is_ours(error: BaseException | None) -> bool:
    """Return whether this project raised an error, so that its message suffices without a traceback.

    For a plain ValueError, the function that raised it decides: pandas raises it too.
    """
    module = type(error).__module__
    if error and type(error) is ValueError:
        frames = [frame for frame, _line in traceback.walk_tb(error.__traceback__)]
        module = frames[-1].f_globals["__name__"] if frames else ""
    return module.partition(".")[0] in OURS


def shorten_failures() -> None:
    """Make run logs say once why a run failed: Prefect says it up to five times, twice with a traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(shorten)


def shorten(record: logging.LogRecord) -> bool:
    """Reduce a failure's log lines to one sentence and the failed states; return whether to keep this line.

    Other errors than this project's keep their tracebacks.
    """
    message = record.getMessage()
    if repeated := REPEATED.match(message):
        record.msg, record.args = repeated[1], ()
    error = record.exc_info[1] if record.exc_info else None
    if not is_ours(error):
        return True
    if message.startswith("Encountered exception"):  # by a flow
        record.msg, record.args, record.exc_info = REASON + "%s", (error,), None
    return not message.startswith("Task run failed")


def explain_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's)
    """Create the failure's artifact, unless parameters were refused; emit an event if the shrink guard refused.

    The final state is recorded already. Events go first: they cannot be sent from a process that is about to exit.
    """
    subject, error = find_subject(flow_run.parameters), find_error(state)
    if isinstance(error, ShrinkError):
        attempt(send_event, "refused", subject, {"reason": str(error)})
    if not isinstance(error, ParameterTypeError):
        title = f"{name_run()} failed"
        report_in_background(create_artifact, "markdown", describe_failure(state), title, f"failure-{subject.id}")


def find_error(state: State[Any]) -> BaseException | None:
    """Return the error that ended a run, None if there was none."""
    data = getattr(state.data, "result", state.data)  # a ResultRecord has it
    return data if isinstance(data, BaseException) else None


def describe_failure(state: State[Any]) -> str:
    """Return what failed, what was tried and what to do, as markdown."""
    error = find_error(state)
    if isinstance(error, ParameterTypeError) or (isinstance(error, ValueError) and is_ours(error)):
        tried, advice = "Nothing was requested.", "Give a value that the message allows."
    elif isinstance(error, EsiError | TableError):
        tried, advice = error.tried, error.advice
    else:
        tried, advice = "It was not retried.", "Read the run's logs: this is not a failure of the API or DynamoDB."
    return (
        f"**What failed.** {type(error).__name__ if error else state.name}: {error or state.message}\n\n"
        f"**What was tried.** {tried}\n\n**What to do.** {advice}\n\n"
        "The table still holds only true records. `#snapshot` says whether they are one whole snapshot; the next run "
        "writes the rest."
    )
