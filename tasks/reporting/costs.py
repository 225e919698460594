"""The costs of a run, and of a state machine that does the same."""

import os
from contextlib import suppress
from decimal import Decimal, InvalidOperation

# USD per million transitions of a standard workflow in us-east-1, as of November 2026: https://aws.amazon.com/step-functions/pricing/
TRANSITIONS_USD = 25
MILLION = 1_000_000


def cost_of_run(write_units: float, read_units: float) -> Decimal:
    """Return the cost of units (USD), by the environment's `WRITE_UNITS_USD` and `READ_UNITS_USD` per million."""
    # By default on demand in us-east-1, as of November 2026: https://aws.amazon.com/dynamodb/pricing/on-demand/
    write_usd, read_usd = read_cost("WRITE_UNITS_USD", "0.625"), read_cost("READ_UNITS_USD", "0.125")
    return (Decimal(write_units) * write_usd + Decimal(read_units) * read_usd) / MILLION


def read_cost(name: str, default: str) -> Decimal:
    """Return a cost (USD) from the environment; raise a ValueError if it is not a number."""
    given = os.environ.get(name) or default
    with suppress(InvalidOperation):
        if (cost := Decimal(given)).is_finite() and cost >= 0:
            return cost
    raise ValueError(f"{name} is {given!r}: give USD per million units, such as {default}")


def cost_of_state_machine(pages: int, records: int) -> Decimal:
    """Return a state machine's cost (USD) for the same table: a transition per page and record, plus five."""
    return Decimal((pages + records + 5) * TRANSITIONS_USD) / MILLION + cost_of_run(records, 0)
