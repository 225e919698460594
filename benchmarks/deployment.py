"""How long `prefect deployment run --watch` takes with a warm worker, for the flow and for an empty one."""

import subprocess
import time

from benchmarks.cases import FLOW, FORGE, NO_TASKS, REPEATS, region_of
from benchmarks.play import Play, RunError
from benchmarks.servers import SNAPSHOT_INDEX, Market
from benchmarks.tables import check, true_records
from deployments.local.environment import CHECKOUT
from deployments.local.servers import prefect

COMMANDS = {NO_TASKS: ["no-tasks/benchmark"], FLOW: ["market-data/region", "--param", f"region_id={region_of(FORGE)}"]}


def time_deployments(play: Play, repeats: int = REPEATS) -> dict[str, list[float]]:
    """Return the seconds of each run, by contestant: first fills of 433 pages, and run of the empty flow, in turn."""
    play.servers.start_worker(Market())
    for contestant in COMMANDS:
        watch(play, contestant)  # warms
    seconds: dict[str, list[float]] = {contestant: [] for contestant in COMMANDS}
    for _ in range(repeats):
        for contestant in COMMANDS:
            seconds[contestant].append(watch(play, contestant))
            play.say(f"deployment: {contestant} {seconds[contestant][-1]:.2f} s")
    return seconds


def watch(play: Play, contestant: str) -> float:
    """Run a deployment to its end, check its table, and return the seconds.

    Raises:
        RunError: it failed.
        WrongTableError: its table is wrong.
    """
    with play.tables.table() as table:
        command = [prefect(), "deployment", "run", *COMMANDS[contestant], "--watch"]
        if contestant == FLOW:
            command += ["--param", f"table_name={table}"]
        environ = play.servers.environ(Market(), as_deployed=True)
        started = time.perf_counter()
        done = subprocess.run(  # noqa: S603 (our own command)
            command, env=environ, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RunError(f"{' '.join(command)} ended with exit code {done.returncode}: {done.stdout[-2000:]}")
        if contestant == FLOW:
            check(play.tables.read(table), true_records(region_of(FORGE), SNAPSHOT_INDEX))
    return seconds
