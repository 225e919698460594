"""The one table that a run of the benchmark prints."""

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Results
from benchmarks.goals import judge_goals
from benchmarks.report import row_of


def show_results(results: Results) -> None:
    """Print all results, and the goals below them."""
    table = Table(title="Medians (least–most)")
    for name in ("case", "who"):
        table.add_column(name)
    for name in ("seconds", "× plain", "CPU seconds", "peak memory, MiB"):
        table.add_column(name, justify="right")
    for result in results.results:
        table.add_row(*row_of(result, results))
    for contestant, seconds in results.deployments.items():
        table.add_row("deployment run", contestant, f"{sorted(seconds)[len(seconds) // 2]:.2f}")
    console = Console()
    console.print(table)
    for goal in judge_goals(results):
        console.print(f"{'met    ' if goal.is_met else 'not met'}  {goal.case}: {goal.measured}, goal {goal.goal}")
