"""Imports that wait until they are needed, one at a time: numpy fails if two threads import it at once."""

import gc
import importlib
import threading
from functools import cache
from typing import Any

_lock = threading.Lock()


@cache
def load(module: str) -> Any:  # noqa: ANN401 (a module)
    """Return a module, imported by one thread at a time."""
    with _lock:
        return importlib.import_module(module)


def load_early(*modules: str) -> None:
    """Import modules one after the other on another thread."""
    threading.Thread(target=lambda: [load(module) for module in modules], daemon=True).start()


def tune_garbage_collector() -> None:
    """Leave what was imported out of garbage collection, and collect rarely: orders, items and records have no cycles.

    With Python's own threshold, collections are a third of a large run's CPU.
    """
    gc.freeze()
    gc.set_threshold(50_000)
