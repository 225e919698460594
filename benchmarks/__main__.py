"""Measure the flows beside a plain script, and write the report."""

import argparse
import sys
from datetime import UTC, datetime

from benchmarks.cases import FORGE, REPEATS, Case, Results, full_cases, quick_cases
from benchmarks.report import describe_machine, figures_table, goals_table, render_report
from benchmarks.runner import Runner, markets_of, read_states
from benchmarks.servers import Bench
from benchmarks.tables import WrongTableError
from deployments.local import environment, processes, progress

TAKEN_APART = (Case("first fill", FORGE).name, Case("a tenth changed", FORGE).name)  # state by state


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases, once; writes only to .local")
    parser.add_argument("--repeats", type=int, metavar="N", default=REPEATS, help="at most N runs per case")
    options = parser.parse_args()
    results = Results(datetime.now(UTC), describe_machine())
    try:
        measure(quick_cases() if options.quick else full_cases(), options.repeats, results)
    except (processes.StackError, WrongTableError) as error:
        return progress.fail(str(error))
    file = (environment.STATE / "performance" if options.quick else environment.CHECKOUT / "docs") / "performance.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(render_report(results))
    print(f"\n{goals_table(results)}\n\n{figures_table(results)}\n\n{file.relative_to(environment.CHECKOUT)}")  # noqa: T201
    return 0


def measure(cases: list[Case], most_repeats: int, results: Results) -> None:
    """Start the servers, measure the cases, and add their results."""
    with Bench() as bench:
        bench.progress.begin("starting markets, store and Prefect server")
        bench.start_all(markets_of(cases))
        runner = Runner(bench)
        for case in cases:
            bench.progress.begin(case.name)
            if case.kind == "deployment run":
                bench.start_worker()
            measures = runner.run(case, min(case.repeats, most_repeats))
            results.measures[case.name] = results.measures.get(case.name, {}) | measures
            if case.name in TAKEN_APART and "market_data" in case.contestants:
                results.states[case.name] = read_states(bench.client, "market-data")


if __name__ == "__main__":
    sys.exit(main())
