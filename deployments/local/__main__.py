"""Runs the embedded stack's commands: `python -m deployments.local --help`."""

import signal
import sys


def run() -> int:
    """Run the command line; Ctrl-C while Python still imports ends it without a word, since nothing runs yet."""
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deployments.local.commands import main  # noqa: PLC0415 (takes two seconds)

    signal.signal(signal.SIGINT, handler)
    return main()


if __name__ == "__main__":
    sys.exit(run())
