"""The DynamoDB client for a market table, and `read_records` for programs that read one."""

from tasks.table.read import read_records

__all__ = ["read_records"]
