"""Measures, prints and writes down: `python -m benchmarks --help`."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.cases import FLOW, FORGE, PLAIN, REPEATS, Case, Results, full_cases, quick_cases
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

FOLDER = STATE / "performance"
KEPT = FOLDER / "results.json"
SHOWN = (Case("first fill", FORGE).name, Case("steady state", FORGE).name)  # state by state


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = read_options()
    try:
        results = measure(options) if options.measure else read_kept()
    except (ChildError, RunError, WrongTableError) as error:
        fail(str(error))
        return 1
    write_down(results, FOLDER if options.quick else CHECKOUT / "docs")
    return 0


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Compares the flow with a plain script.")
    parser.add_argument("--quick", action="store_true", help="two sizes, once, and no file of the checkout is changed")
    parser.add_argument("--repeats", type=int, metavar="N", help=f"of each case, at most, instead of {REPEATS}")
    parser.add_argument("--resume", action="store_true", help="go on after a run that was stopped")
    parser.add_argument("--no-measure", dest="measure", action="store_false", help="write the last results down anew")
    return parser.parse_args()


def read_kept() -> Results:
    """Return what the last run has measured, as far as it came."""
    return msgspec.json.decode(KEPT.read_bytes(), type=Results)


def choose_cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the command line asks for."""
    cases = quick_cases() if options.quick else full_cases()
    return [msgspec.structs.replace(case, repeats=min(options.repeats or REPEATS, case.repeats)) for case in cases]


def measure(options: argparse.Namespace) -> Results:
    """Start the servers and measure what is asked for."""
    cases = choose_cases(options)
    results = read_kept() if options.resume else Results(datetime.now(UTC), describe_machine(), list_versions())
    with Progress() as progress, Servers() as servers:
        progress.begin("starting markets, store and Prefect server")
        servers.start(markets_of(cases))
        play = Play(servers, progress.say)
        for case in cases:
            progress.begin(case.name)
            play_case(play, case, results)
            keep(results, quick=options.quick)
        if not options.quick:
            progress.begin("profiling")
            results.profiles = {name: play.profile(Case("first fill", FORGE), name) for name in (PLAIN, FLOW)}
            progress.begin("running deployments")
            results.deployments = time_deployments(play, cases[0].repeats)
            keep(results, quick=False)
    return results


def play_case(play: Play, case: Case, results: Results) -> None:
    """Measure one case, unless an earlier run has, and add what came out."""
    if all(results.find(contestant, case) for contestant in case.contestants):
        return
    results.results += play.play(case)
    results.orders[case.pages] = count_orders(case.region_id, SNAPSHOT_INDEX)
    if case.name in SHOWN and FLOW in case.contestants:
        results.spans[case.name] = read_spans(play.servers.api.url, "market-data")


def keep(results: Results, *, quick: bool) -> None:
    """Keep what has been measured so far."""
    FOLDER.mkdir(exist_ok=True)
    file = KEPT.with_stem("quick") if quick else KEPT
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results)))


def write_down(results: Results, folder: Path) -> None:
    """Draw the plots, write the report into a folder, and print the results."""
    draw_plots(results, folder / "images")
    (folder / "performance.md").write_text(write_report(results, "images"))
    show_results(results)
    print(f"\n{(folder / 'performance.md').relative_to(CHECKOUT)}")  # noqa: T201 (what a user opens next)


if __name__ == "__main__":
    sys.exit(main())
