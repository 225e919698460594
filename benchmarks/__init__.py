"""The comparison runs behind every figure of docs/performance.md."""
