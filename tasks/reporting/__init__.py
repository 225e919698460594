"""What people see of a run: logs, progress, events, artifacts, traces."""
