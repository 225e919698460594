"""Summaries of runs that there were not."""

from datetime import UTC, datetime, timedelta

from tasks.reporting.summary import Summary

STARTED = datetime(2026, 11, 25, 9, tzinfo=UTC)


def make_summary(number: int = 0, **figures: object) -> Summary:
    """Return the summary of the run number `number` of a table."""
    quiet: dict[str, object] = dict.fromkeys(Summary.model_fields, 0) | {
        "table_name": "Market",
        "order_type": "sell",
        "price": "min",
        "detail": "compact",
        "esi_url": "https://esi.evetech.net",
        "last_modified": STARTED + timedelta(minutes=5 * number),
        "compared_with": STARTED + timedelta(minutes=5 * (number - 1)),
        "age_seconds": 60.0,
        "retry_causes": {},
        "state_seconds": {"Fetch Pages": 1.0},
        "price_changes": {},
        "markets": [],
    }
    return Summary.model_validate(quiet | figures)
