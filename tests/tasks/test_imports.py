"""Modules that are imported when they are needed."""

import subprocess
import sys

CODE = """
import threading
from tasks.imports import load, load_early

failures = []

def use(module):
    try:
        load(module)
    except ImportError as error:
        failures.append(error)

load_early("tasks.orders.columns", "tasks.orders.aggregation")
modules = ["tasks.orders.columns", "tasks.orders.exact", "tasks.orders.merge", "tasks.orders.aggregation"]
threads = [threading.Thread(target=use, args=[module]) for module in modules * 4]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
raise SystemExit(len(failures))
"""


def test_many_threads_may_load_at_once() -> None:
    """Threads that need numpy and pandas at the same time, in a fresh process, all get them."""
    subprocess.run([sys.executable, "-c", CODE], check=True)
