"""Prefect's heartbeats, off: only Python can."""

from contextlib import AbstractContextManager

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings


def stop_heartbeats() -> AbstractContextManager[object]:
    """Make flow runs of this process send no heartbeats, until the block ends."""
    return temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
