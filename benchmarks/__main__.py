"""Measure the flows beside a plain script, and write the report."""

import argparse
import sys
from datetime import UTC, datetime

import msgspec

from benchmarks.cases import FORGE, REPEATS, Case, Results, full_cases, quick_cases
from benchmarks.recorded import read_states
from benchmarks.report import describe_machine, figures_table, goals_table, render_report
from benchmarks.runner import RunError, Runner, markets_of
from benchmarks.servers import Bench
from benchmarks.tables import WrongTableError
from deployments.local.environment import CHECKOUT, STATE
from deployments.local.processes import ChildError
from deployments.local.progress import Progress, fail

FOLDER = STATE / "performance"
TAKEN_APART = (Case("first fill", FORGE).name, Case("a tenth changed", FORGE).name)  # state by state


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases, once; writes only to .local")
    parser.add_argument("--repeats", type=int, metavar="N", default=REPEATS, help="at most N runs per case")
    parser.add_argument("--resume", action="store_true", help="keep the results of a stopped run, measure the rest")
    parser.add_argument("--no-measure", dest="measure", action="store_false", help="rewrite the last report")
    options = parser.parse_args()
    kept = FOLDER / ("quick.json" if options.quick else "results.json")
    results = Results(datetime.now(UTC), describe_machine())
    if options.resume or not options.measure:
        results = msgspec.json.decode(kept.read_bytes(), type=Results)
    try:
        if options.measure:
            measure(quick_cases() if options.quick else full_cases(), options.repeats, results)
    except (ChildError, RunError, WrongTableError) as error:
        return fail(str(error))
    finally:
        FOLDER.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    file = (FOLDER if options.quick else CHECKOUT / "docs") / "performance.md"
    file.write_text(render_report(results))
    print(f"\n{goals_table(results)}\n\n{figures_table(results)}\n\n{file.relative_to(CHECKOUT)}")  # noqa: T201
    return 0


def measure(cases: list[Case], most_repeats: int, results: Results) -> None:
    """Start the servers, measure the cases without results, and add their results."""
    with Progress() as progress, Bench() as bench:
        progress.begin("starting markets, store and Prefect server")
        bench.start(markets_of(cases))
        runner = Runner(bench, progress.say)
        for case in cases:
            if results.measures.get(case.name, {}).keys() >= set(case.contestants):
                continue
            progress.begin(case.name)
            if case.kind == "deployment run":
                bench.start_worker()
            measures = runner.run(msgspec.structs.replace(case, repeats=min(case.repeats, most_repeats)))
            results.measures[case.name] = results.measures.get(case.name, {}) | measures
            if case.name in TAKEN_APART and "market_data" in case.contestants:
                results.states[case.name] = read_states(bench.api_url, "market-data")


if __name__ == "__main__":
    sys.exit(main())
