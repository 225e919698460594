"""The flow's states, one a file, and the two clients that they share: `esi` (HTTP) and `table` (DynamoDB)."""
