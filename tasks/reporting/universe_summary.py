"""The summary of a round of many regions."""

from collections import Counter
from typing import Literal

from pydantic import BaseModel

from tasks.catalogue.names import region_name
from tasks.reporting.summary import Counts, Summary, Totals, add_up, counted


class RegionError(Exception):
    """All regions of a round failed."""


class RegionResult(BaseModel, frozen=True):
    """The result of one region."""

    region_id: int
    state: Literal["stored", "not modified", "failed"]
    summary: Summary | None  # None if it failed
    failure: str = ""  # why


class UniverseSummary(Totals):
    """The summary of a round: sums over the regions that did not fail, of `pages` over those that were stored."""

    regions: list[RegionResult]  # in the order in which they started
    stored: int  # regions
    not_modified: int
    failed: int
    orders: int  # of all regions

    @property
    def summaries(self) -> list[Summary]:
        """Those of the regions that did not fail."""
        return [region.summary for region in self.regions if region.summary]

    @property
    def slowest(self) -> Summary | None:
        """That of the region that took longest; None if all failed."""
        return max(self.summaries, key=lambda each: each.seconds, default=None)

    @property
    def line(self) -> str:
        """The summary in one line."""
        counts = {"stored": self.stored, "not modified": self.not_modified, "failed": self.failed}
        states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        return (
            f"{counted(len(self.regions), 'region')} in {self.seconds:.0f} s: {states}; "
            f"{counted(self.records, 'record')} ({self.written:,} written, {self.deleted:,} deleted), "
            f"{counted(self.pages, 'page')}, ${self.cost_usd:.4f}"
        )


def describe_result(region_id: int, result: Summary | Exception) -> RegionResult:
    """Return the result of a region, from its summary or error."""
    if isinstance(result, Exception):
        return fail_region(region_id, str(result) or type(result).__name__)
    return RegionResult(region_id=region_id, state="not modified" if result.not_modified else "stored", summary=result)


def fail_region(region_id: int, why: str) -> RegionResult:
    """Return the result of a region that failed."""
    failure = why if str(region_id) in why else f"region {region_id}: {why}"
    return RegionResult(region_id=region_id, state="failed", summary=None, failure=failure)


def summarize_universe(regions: list[RegionResult], seconds: float) -> UniverseSummary:
    """Return the summary of a round."""
    summaries = [region.summary for region in regions if region.summary]
    states = Counter(region.state for region in regions)
    return UniverseSummary(
        regions=regions,
        stored=states["stored"],
        not_modified=states["not modified"],
        failed=states["failed"],
        pages=sum(summary.pages for summary in summaries if not summary.not_modified),
        **add_up(summaries, ["orders", "retries", "consumed_write_units", "consumed_read_units", *Counts.model_fields]),
        seconds=round(seconds, 3),
    )


def describe_universe(summary: UniverseSummary) -> str:
    """Return the summary as markdown: the totals, the failures, then a row per region."""
    slowest = summary.slowest
    slow = f"{region_name(slowest.region_id)}, {slowest.seconds:.1f} s" if slowest else "none"
    failed = [region for region in summary.regions if region.failure]
    lines = [
        f"{summary.line}. The slowest was {slow}.\n",
        *(f"- **{region_name(region.region_id)}**: {region.failure}" for region in failed),
        "\n| region | id | result | pages | records | written | deleted | retries | seconds | cost (USD) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *map(describe_row, summary.regions),
    ]
    return "\n".join(lines)


def describe_row(region: RegionResult) -> str:
    """Return a region's row."""
    cells = [region_name(region.region_id), str(region.region_id), region.state]
    if did := region.summary:
        counts = (did.pages, did.records, did.written, did.deleted, did.retries)
        cells += [*(f"{count:,}" for count in counts), f"{did.seconds:.1f}", f"{did.cost_usd:.6f}"]
    return f"| {' | '.join(cells)} |"
