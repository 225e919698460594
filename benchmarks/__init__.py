"""Benchmarks: the source of every figure in docs/performance.md."""
