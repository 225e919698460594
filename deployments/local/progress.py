"""Lines that say what is going on, and that it still is."""

import sys
import textwrap
import threading
import time
from typing import Self

SILENT_SECONDS = 2.0
WIDTH = 80  # columns, whatever the terminal has: what is piped looks the same


def wrap(text: str, prefix: str = "", indent: str | None = None) -> str:
    """Return text in lines of at most 80 columns, never broken within a word, even if one is longer than that.

    Args:
        text: what is said.
        prefix: before its first line.
        indent: before the others; as wide as `prefix` if not given.
    """
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=" " * len(prefix) if indent is None else indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Progress:
    """Prints lines with the seconds since the start, and a sign of life where nothing happens for two seconds."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.parts: dict[str, float] = {}  # seconds by name
        self._part = ""
        self._begun = self._last = self.started
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._breathe, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def say(self, text: str) -> None:
        """Print what happens, with the seconds since the start."""
        with self._lock:
            self._last = time.monotonic()
            print(wrap(text, f"{self._last - self.started:5.1f} s  "), flush=True)  # noqa: T201 (what it is for)

    def begin(self, part: str) -> None:
        """End the part before, and say that another begins."""
        self.end()
        self._part = part
        self.say(part)

    def end(self) -> None:
        """End the part, and keep how long it took."""
        now = time.monotonic()
        if self._part:
            self.parts[self._part] = now - self._begun
        self._part, self._begun = "", now

    def _breathe(self) -> None:
        while not self._stop.wait(0.25):
            if self._part and time.monotonic() - self._last >= SILENT_SECONDS:
                self.say(f"… still {self._part}")


def fail(message: str) -> None:
    """Print why it did not work."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 (what it is for)
