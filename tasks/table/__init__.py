"""The DynamoDB client for a market table, and two functions that read one for other programs."""

from tasks.table.read import read_prices, read_records

__all__ = ["read_prices", "read_records"]
