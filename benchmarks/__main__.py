"""Measures, prints and writes down: `python -m benchmarks --help`."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.cases import FLOW, FORGE, PLAIN, REPEATS, Case, Results, full_cases, quick_cases
from benchmarks.cpu_profile import Profile
from benchmarks.deployment import time_deployments
from benchmarks.machine import describe_machine, list_versions
from benchmarks.play import Play, RunError, markets_of
from benchmarks.plots import draw_plots
from benchmarks.report import write_report
from benchmarks.screen import show_results
from benchmarks.servers import SNAPSHOT_INDEX, Servers
from benchmarks.states import read_spans
from benchmarks.tables import WrongTableError, count_orders
from deployments.local.environment import CHECKOUT, STATE
from deployments.local.processes import ChildError
from deployments.local.progress import Progress, fail

RESULTS = "results.json"
SHOWN = (Case("first fill", FORGE).name, Case("steady state", FORGE).name)  # state by state


def main() -> int:
    """Does what the command line says; gives the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Compares the flow with a plain script.")
    parser.add_argument("--quick", action="store_true", help="two sizes, once, and no file of the checkout is changed")
    parser.add_argument("--from-results", type=Path, metavar="FILE", help="write the report anew from earlier results")
    parser.add_argument("--repeats", type=int, metavar="N", help=f"of each case, instead of {REPEATS}")
    options = parser.parse_args()
    try:
        if options.from_results:
            results = msgspec.json.decode(options.from_results.read_bytes(), type=Results)
        else:
            cases = quick_cases() if options.quick else full_cases()
            if options.repeats:
                cases = [msgspec.structs.replace(case, repeats=options.repeats) for case in cases]
            results = measure(cases, is_full=not options.quick)
    except (ChildError, RunError, WrongTableError) as error:
        fail(str(error))
        return 1
    write_down(results, STATE / "performance" if options.quick else CHECKOUT / "docs")
    return 0


def measure(cases: list[Case], *, is_full: bool) -> Results:
    """Starts the servers and measures all cases."""
    results = Results(datetime.now(UTC), describe_machine(), list_versions())
    with Progress() as progress, Servers() as servers:
        progress.begin("starting markets, store and Prefect server")
        servers.start(markets_of(cases))
        play = Play(servers, progress.say)
        for case in cases:
            progress.begin(case.name)
            play_case(play, case, results)
            keep(results)
        if is_full:
            progress.begin("profiling")
            results.profiles = {contestant: profile(play, contestant) for contestant in (PLAIN, FLOW)}
            progress.begin("running deployments")
            results.deployments = time_deployments(play)
        keep(results)
    return results


def play_case(play: Play, case: Case, results: Results) -> None:
    """Measures one case, and adds what came out."""
    results.results += play.play(case)
    results.orders[case.pages] = count_orders(case.region_id, SNAPSHOT_INDEX)
    if case.name in SHOWN:
        results.spans[case.name] = read_spans(play.servers.api.url, "market-data")


def profile(play: Play, contestant: str) -> Profile:
    """Gives the CPU profile of a first fill of 433 pages."""
    measured = play.measure(Case("first fill", FORGE), contestant, is_profiled=True)
    assert measured.profile
    return measured.profile


def keep(results: Results) -> None:
    """Keeps what has been measured so far."""
    (STATE / "performance").mkdir(exist_ok=True)
    (STATE / "performance" / RESULTS).write_bytes(msgspec.json.format(msgspec.json.encode(results)))


def write_down(results: Results, folder: Path) -> None:
    """Draws the plots, writes the report into a folder, and prints the results."""
    draw_plots(results, folder / "images")
    (folder / "performance.md").write_text(write_report(results, "images"))
    show_results(results)
    print(f"\n{(folder / 'performance.md').relative_to(CHECKOUT)}")  # noqa: T201 (what a user opens next)


if __name__ == "__main__":
    sys.exit(main())
