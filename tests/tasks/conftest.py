"""What the states' tests share."""

from hypothesis import settings

settings.register_profile("tasks", deadline=None, database=None)
settings.load_profile("tasks")
