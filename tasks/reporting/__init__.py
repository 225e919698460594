"""What a person sees of a run: logs, progress, events, artifacts, traces."""
