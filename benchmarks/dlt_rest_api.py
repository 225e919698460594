"""dlt's `rest_api` into memory: `ESI_URL=… uv run --with dlt==1.31.0 benchmarks/dlt_rest_api.py`."""

import os
import time

from dlt.sources.rest_api import rest_api_resources  # type: ignore[import-not-found]

HEADERS = {"X-Compatibility-Date": "2026-08-18"}


def run(pages: int = 433) -> None:
    """Print how long dlt takes to fetch a region's orders, one page after another."""
    endpoint = {
        "path": f"markets/{19_000_000 + pages}/orders",
        "params": {"order_type": "all"},
        "paginator": {"type": "page_number", "base_page": 1, "maximum_page": pages + 1, "total_path": None},
    }
    client = {"base_url": os.environ["ESI_URL"], "headers": HEADERS}
    started = time.perf_counter()
    orders = list(rest_api_resources({"client": client, "resources": [{"name": "orders", "endpoint": endpoint}]})[0])
    print(f"{len(orders):,} orders in {time.perf_counter() - started:.2f} s")  # noqa: T201 (a command's answer)


if __name__ == "__main__":
    run()
