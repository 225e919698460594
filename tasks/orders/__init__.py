"""Arithmetic on orders, without I/O and without Prefect."""
