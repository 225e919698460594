"""Measures, prints and writes down: `python -m benchmarks --help`."""

import argparse
import sys
from datetime import UTC, datetime

import msgspec

from benchmarks.cases import FLOW, FORGE, REPEATS, Case, Results, full_cases, quick_cases
from benchmarks.play import Play, RunError, markets_of
from benchmarks.recorded import read_states
from benchmarks.report import describe_machine, figures_table, goals_table, write_report
from benchmarks.servers import Bench
from benchmarks.tables import WrongTableError
from deployments.local.environment import CHECKOUT, STATE
from deployments.local.processes import ChildError
from deployments.local.progress import Progress, fail

FOLDER = STATE / "performance"
SHOWN = (Case("first fill", FORGE).name, Case("a tenth changed", FORGE).name)  # state by state


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = read_options()
    kept = FOLDER / ("quick.json" if options.quick else "results.json")
    results = Results(datetime.now(UTC), describe_machine())
    if options.resume or not options.measure:
        results = msgspec.json.decode(kept.read_bytes(), type=Results)
    try:
        if options.measure:
            measure(quick_cases() if options.quick else full_cases(), options.repeats, results)
    except (ChildError, RunError, WrongTableError) as error:
        fail(str(error))
        return 1
    finally:
        FOLDER.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    file = (FOLDER if options.quick else CHECKOUT / "docs") / "performance.md"
    file.write_text(write_report(results))
    print(f"\n{goals_table(results)}\n\n{figures_table(results)}\n\n{file.relative_to(CHECKOUT)}")  # noqa: T201 (an answer)
    return 0


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Compares the flows with a plain script.")
    parser.add_argument("--quick", action="store_true", help="few cases, once, and no file of the checkout is changed")
    parser.add_argument("--repeats", type=int, metavar="N", default=REPEATS, help="of each case, at most")
    parser.add_argument("--resume", action="store_true", help="go on after a run that was stopped")
    parser.add_argument("--no-measure", dest="measure", action="store_false", help="write the last results down again")
    return parser.parse_args()


def measure(cases: list[Case], most_repeats: int, results: Results) -> None:
    """Start the servers, measure what has no results yet, and add what comes out."""
    with Progress() as progress, Bench() as bench:
        progress.begin("starting markets, store and Prefect server")
        bench.start(markets_of(cases))
        play = Play(bench, progress.say)
        for case in cases:
            if results.measures.get(case.name, {}).keys() >= set(case.contestants):
                continue
            progress.begin(case.name)
            if case.kind == "deployment run":
                bench.start_worker()
            found = play.play(msgspec.structs.replace(case, repeats=min(case.repeats, most_repeats)))
            results.measures[case.name] = results.measures.get(case.name, {}) | found
            if case.name in SHOWN and FLOW in case.contestants:
                results.states[case.name] = read_states(bench.api_url, "market-data")


if __name__ == "__main__":
    sys.exit(main())
