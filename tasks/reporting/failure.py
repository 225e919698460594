"""How a run that fails with one of this project's errors says why: once, in one sentence, without a traceback."""

import logging
import re
import traceback

OURS = {"deployments", "flows", "tasks"}
REASON = "failed: "
REPEATED = re.compile(r"(Finished in state Failed)\(.(Task run|Flow run) encountered an exception")


def is_ours(error: BaseException | None) -> bool:
    """Return whether this project raised an error, whose message then says all that there is to say.

    Of a plain ValueError its class does not tell: pandas raises it, too. The function that raised it does.
    """
    module = type(error).__module__
    if error and type(error) is ValueError:
        frames = [frame for frame, _line in traceback.walk_tb(error.__traceback__)]
        module = frames[-1].f_globals["__name__"] if frames else ""
    return module.partition(".")[0] in OURS


def say_once() -> None:
    """Have the logs of runs say once why a run failed: Prefect does up to five times, twice with a traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(shorten)


def shorten(record: logging.LogRecord) -> bool:
    """Leave of a failure's lines the sentence, and which states failed; return whether anything is left of this line.

    Errors that are not this project's keep their tracebacks.
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
