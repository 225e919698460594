"""What the states' tests share."""

import os

from hypothesis import settings

# The whole suite, which runs on several cores, searches longer than somebody who runs a single file.
examples = 100 if "PYTEST_XDIST_WORKER" in os.environ else 10
settings.register_profile("tasks", deadline=None, database=None, max_examples=examples)
settings.load_profile("tasks")
