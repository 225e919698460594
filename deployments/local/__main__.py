"""Run the embedded stack's commands: `python -m deployments.local --help`."""

import signal
import sys

handler = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports ends it silently: nothing is running yet
from deployments.local.commands import main  # noqa: E402

signal.signal(signal.SIGINT, handler)
sys.exit(main())
