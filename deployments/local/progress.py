"""Lines in the terminal that say what is going on, and that it still is."""

import re
import sys
import textwrap
import time

SILENT_SECONDS = 2.0
WIDTH = 80  # columns, however wide the terminal is, so that piped output looks the same
PREFIX = re.compile(r"^(Flow run encountered an exception|Validation of flow parameters failed with error): *(\w+: )?")


def wrap(text: str, prefix: str = "", indent: str | None = None) -> str:
    """Return text in lines of at most 80 columns, with whole words; by default all are indented as far as the first."""
    rest = " " * len(prefix) if indent is None else indent
    return textwrap.fill(
        text, WIDTH, initial_indent=prefix, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def strip_prefix(message: str) -> str:
    """Return the message of a failed state in one line, without Prefect's prefix and the error's class."""
    return " ".join(PREFIX.sub("", message).split())


class Progress:
    """Prints lines with the seconds since the start, and a sign of life after two seconds of silence."""

    def __init__(self) -> None:
        self._part = ""
        self._started = self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print text after the seconds since the start."""
        self._last = time.monotonic()
        print(wrap(text, f"{self._last - self._started:5.1f} s  "), flush=True)  # noqa: T201 (what it is for)

    def begin(self, part: str) -> None:
        """Print what begins."""
        self._part = part
        self.say(part)

    def breathe(self) -> None:
        """Print that it goes on, after two seconds of silence; for loops that wait."""
        if self._part and time.monotonic() - self._last >= SILENT_SECONDS:
            self.say(f"… still {self._part}")


def fail(message: str) -> int:
    """Print an error and return the exit code 1."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 (what it is for)
    return 1
