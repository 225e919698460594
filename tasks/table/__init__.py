"""The DynamoDB client for a market table, and two functions for programs that read one."""

from tasks.table.read import read_prices, read_records

__all__ = ["read_prices", "read_records"]
