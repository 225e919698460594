"""Run the embedded stack's commands: `python -m deployments.local --help`."""

import signal
import sys


def run() -> int:
    """Run the command line; Ctrl-C during imports ends it silently, since nothing is running yet."""
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deployments.local.commands import main  # noqa: PLC0415 (takes half a second)

    signal.signal(signal.SIGINT, handler)
    return main()


if __name__ == "__main__":
    sys.exit(run())
