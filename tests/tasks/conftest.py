"""Settings of hypothesis for these tests."""

import os

from hypothesis import settings

# The whole suite runs on several cores, so it searches longer than a single file.
examples = 100 if "PYTEST_XDIST_WORKER" in os.environ else 10
settings.register_profile("tasks", deadline=None, database=None, max_examples=examples)
settings.load_profile("tasks")
