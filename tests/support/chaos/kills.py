"""Kills runs of a deployment at random moments, and has the next one repair."""

import os
import random
import signal
import time
import uuid
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.environment import POOL
from deployments.local.processes import Child, stop_all
from deployments.local.servers import prefect, worker_command
from flows.market_data import market_data
from tests.support.api import Api
from tests.support.chaos.check import Truth, WrongTableError, check_table, differences
from tests.support.chaos.many import say
from tests.support.chaos.market import REGION, SmallMarket
from tests.support.chaos.play import FIRST_INDEX, environment, hurry, read_all
from tests.support.servers import wait_for
from tests.support.worlds import Clock, serve

PARAMETERS = ("sell", "min", "compact")
DEPLOYMENT = "market-data/venal"
TYPES = 4000  # so that writing takes a while
LEASE_SECONDS = 6.0  # after which a repair takes over what a killed run held
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
TOO_LATE = "had ended"


def kill_often(kills: int, seed: int, api: Api) -> int:
    """Kill so many runs and print what came of them; return the exit code.

    Each is killed outright at a random moment of its time in state Running, and leaves its table to the next run.
    """
    say(f"{kills} kills from seed {seed}: make chaos KILLS={kills} SEED={seed}")
    draw, found = random.Random(seed), Counter[str]()
    market = SmallMarket(seed, Clock(FIRST_INDEX * 300.0 + 60), types=TYPES, page_orders=1000)
    truth, wrong = Truth(market, REGION), 0
    dynamodb = boto3.client("dynamodb")
    with serve(market) as url, environment(ESI_URL=url), TemporaryDirectory() as logs, hurry(LEASE_SECONDS):
        worker = start_worker(api, Path(logs))
        try:
            for _ in range(2):  # the first is slower than those to come
                life_seconds = run_whole(api, dynamodb, truth, market)
            for number in range(kills):
                try:
                    while True:
                        name = f"Kill-{uuid.uuid4()}"
                        ended_as = kill_one(api, worker, name, draw.uniform(0, life_seconds))
                        found[ended_as] += 1
                        if ended_as != TOO_LATE:
                            break
                    check_table({}, read_all(dynamodb, name), PARAMETERS, truth)
                    found[f"table {state_of(read_all(dynamodb, name))}"] += 1
                    market_data(REGION, name)
                    if differing := differences(read_all(dynamodb, name), truth.table(market.index, *PARAMETERS)):
                        raise WrongTableError(f"after the repair {differing}")  # noqa: TRY301
                except WrongTableError as error:
                    wrong += 1
                    say(f"WRONG at kill {number} of seed {seed}: {error}")
                if number % 10 == 9:
                    say(f"{number + 1} kills: {dict(found)}")
        finally:
            stop_all([worker])
    say(f"{kills} runs of {life_seconds:.1f} s killed: {dict(found)}")
    say(f"wrong tables: {wrong}")
    return int(wrong > 0)


def start_worker(api: Api, logs: Path) -> Child:
    """Deploys, and starts a worker."""
    api.create_pool(POOL)
    command = prefect("--no-prompt", "deploy", "--all")
    deploy = Child("deploy", command, os.environ, logs / "deploy.log", is_task=True)
    wait_for(deploy.has_succeeded, "the deployment")
    worker = Child("worker", worker_command(), os.environ, logs / "worker.log")
    wait_for(lambda: api.has_worker(POOL), "the worker")
    return worker


def run_whole(api: Api, dynamodb: DynamoDBClient, truth: Truth, market: SmallMarket) -> float:
    """Run the deployment once without a kill, and return the seconds for which the run is in state Running."""
    name = f"Kill-{uuid.uuid4()}"
    run_id = api.create_run(DEPLOYMENT, {"region_id": REGION, "table_name": name})
    wait_for(lambda: api.read_state(run_id).type in {"RUNNING", *FINAL}, "the run")
    started = time.monotonic()
    wait_for(lambda: api.read_state(run_id).type in FINAL, "the run's end")
    seconds = time.monotonic() - started
    assert not differences(read_all(dynamodb, name), truth.table(market.index, *PARAMETERS))
    return seconds


def kill_one(api: Api, worker: Child, table_name: str, after_seconds: float) -> str:
    """Kill a new run so many seconds after it is in state Running, and return how it ended by Prefect's word.

    Prefect must not show it as running for ever: the worker sees its process end. `TOO_LATE` if no process was left.
    """
    run_id = api.create_run(DEPLOYMENT, {"region_id": REGION, "table_name": table_name})
    wait_for(lambda: api.read_state(run_id).type in {"RUNNING", *FINAL}, "the run")
    time.sleep(after_seconds)
    children = running_below(worker.pid)
    if not children:
        return TOO_LATE
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: api.read_state(run_id).type in FINAL, "the run's end")
    return api.read_state(run_id).name


def running_below(pid: int) -> list[int]:
    """Return a process's children."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def state_of(items: dict[str, dict[str, dict[str, str]]]) -> str:
    """Return where a table stands, in a word."""
    return items["#snapshot"]["state"]["S"] if "#snapshot" in items else "without #snapshot"
