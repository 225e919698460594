"""The production topology on this machine, without containers: PostgreSQL, Redis, API servers, services, workers."""
