"""The DynamoDB client for a market table."""
