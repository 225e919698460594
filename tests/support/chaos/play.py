"""Plays one schedule of faults against the real flow, and checks the table after every run."""

import contextvars
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import boto3
from botocore.retries.standard import ExponentialBackoff
from mypy_boto3_dynamodb import DynamoDBClient
from prefect import Task

from flows.market_data import market_data
from flows.paged_api import paged_api
from tasks.esi import body
from tasks.esi.errors import EsiError
from tasks.fetch_pages import fetch_pages
from tasks.get_page_count import get_page_count
from tasks.keep_region import keep_region
from tasks.orders.choices import Detail, OrderType, Parameters, Price
from tasks.store_records import compare_records, complete_table, store_records
from tasks.table import lease, pace
from tasks.table import read as read_records
from tasks.table.client import Table
from tasks.table.connection import open_connection
from tasks.table.create import create
from tasks.table.errors import TableError
from tasks.table.requests import Item, Keys
from tasks.table.snapshot import TableSnapshot
from tests.support.chaos.check import (
    FOREIGN,
    Markets,
    Truth,
    WrongTableError,
    check_exact,
    check_markets,
    comparable,
    split_markets,
)
from tests.support.chaos.declared import declare
from tests.support.chaos.declared import describe as describe_declared
from tests.support.chaos.market import REGION, SmallMarket
from tests.support.chaos.outcome import Outcome
from tests.support.chaos.readers import reading
from tests.support.chaos.schedule import Schedule
from tests.support.faults.market import serve_faulty
from tests.support.faults.plan import Plan
from tests.support.faults.store import serve_faulty_store
from tests.support.tables import fill_in, scan, scan_markets
from tests.support.worlds import Clock

Flow = Callable[..., object]
FIRST_INDEX = 5_900_000  # a snapshot's number; no clock of a machine counts
NEIGHBOUR = 10000001  # a market of the table that is not the runs'


@contextmanager
def hurry(standstill_seconds: float = 3.0) -> Iterator[None]:
    """Let waits be short that are long for the sake of others: what happens in which order stays.

    Args:
        standstill_seconds: after which a lease is taken over; its other times keep their proportion to it.
    """
    short = {
        (body, "BODY_SECONDS"): 2.0,
        (pace, "MAX_WAIT_SECONDS"): 0.05,
        (lease, "STANDSTILL_SECONDS"): standstill_seconds,
        (lease, "RENEW_SECONDS"): standstill_seconds / 7.5,
        (lease, "SAFE_SECONDS"): standstill_seconds / 1.875,
        (lease, "WAIT_SECONDS"): 2.5 * standstill_seconds,
        (lease, "POLL_SECONDS"): 0.03,
        (read_records, "WAIT_SECONDS"): 0.01,
        (ExponentialBackoff, "delay_amount"): lambda *_: 0.01,  # between the SDK's own attempts
    }
    kept = {(owner, name): getattr(owner, name) for owner, name in short}
    states: list[Task[..., Any]] = [get_page_count, fetch_pages, compare_records, store_records, complete_table]
    tasks = [*states, keep_region]
    delays = [task.retry_delay_seconds for task in tasks]
    for (owner, name), value in short.items():
        setattr(owner, name, value)
    for task in tasks:
        task.retry_delay_seconds = [0.01, 0.02, 0.04, 0.08, 0.16]
    try:
        yield
    finally:
        for (owner, name), value in kept.items():
            setattr(owner, name, value)
        for task, delay in zip(tasks, delays, strict=True):
            task.retry_delay_seconds = delay


def play(schedule: Schedule, flow: Flow = market_data) -> Outcome:
    """Play a schedule: its runs with its faults, then one without; a reader reads all the while.

    Args:
        schedule: what goes wrong.
        flow: takes the flow's parameters.

    Raises:
        WrongTableError: see `tests.support.chaos.check`; or the run without faults did not end with the exact table, or
            the reader was given records of no whole snapshot.
    """
    clock = Clock(FIRST_INDEX * 300.0 + 60)
    market = SmallMarket(schedule.seed, clock)
    truths = {market_id: Truth(market, market_id) for market_id in schedule.markets or [REGION]}
    name = f"Chaos-{uuid.uuid4()}"
    market_plan, store_plan = Plan(schedule.market_faults, schedule.seed), Plan(schedule.store_faults, schedule.seed)
    direct = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    dynamodb = boto3.client("dynamodb", endpoint_url=direct)
    outcome = Outcome(Counter(["declared" if schedule.is_declared else f"{len(truths)} of a region"]))
    parameters = (schedule.order_type, schedule.price, schedule.detail)
    run: dict[str, object] = {
        "region_id": REGION,
        "table_name": name,
        **dict(zip(("order_type", "price", "detail"), parameters, strict=True)),
        "fetch_concurrency": schedule.fetch_concurrency,
    }
    if schedule.markets:
        run |= {"key": schedule.key, "markets": schedule.markets}
    with ExitStack() as held:
        connection = held.enter_context(open_connection(1))  # past the faults
        market_url = held.enter_context(serve_faulty(market, market_plan))
        if schedule.is_declared:
            run = {**declare(market_url), "table_name": name, "fetch_concurrency": schedule.fetch_concurrency}
            flow = paged_api
        prepare(schedule, truths, market_url, market.index - 1, name, dynamodb)
        readers = [(Table(name, connection, Keys(each if schedule.markets else None)), truths[each]) for each in truths]
        held.enter_context(reading([] if schedule.is_declared else readers, outcome))  # which reads markets alone
        store_url = held.enter_context(serve_faulty_store(direct, store_plan))
        held.enter_context(environment(ESI_URL=market_url, AWS_ENDPOINT_URL_DYNAMODB=store_url))
        for _ in range(schedule.runs):
            before = read_markets(dynamodb, name, schedule)
            run_at_once(flow, run, schedule.at_once, outcome)
            check_markets(before, read_markets(dynamodb, name, schedule), parameters, truths)
            clock.now += 300 * (schedule.seed % 2)
        market_plan.stop()
        store_plan.stop()
        # Records that no run of a source has stored are only replaced with force.
        flow(**run, **({"force": True} if schedule.is_declared and schedule.start == "no snapshot" else {}))
        outcome.runs += 1
    check_exact(read_markets(dynamodb, name, schedule), parameters, truths)
    dynamodb.delete_table(TableName=name)
    dynamodb.close()
    market.close()
    outcome.injected = market_plan.injected + store_plan.injected
    return outcome


def prepare(
    schedule: Schedule, truths: Mapping[int, Truth], url: str, index: int, name: str, dynamodb: DynamoDBClient
) -> None:
    """Make the table as the schedule begins with it, in each market: of the snapshot before the first."""
    if schedule.start == "no table":
        return
    with Table(name, 1, Keys(REGION if schedule.markets else None)) as new:
        create(new)
    if schedule.start == "empty":
        return
    for market_id, truth in truths.items():
        keys = Keys(market_id if schedule.markets else None)
        foreign = [item for key, item in FOREIGN.items() if key.startswith("#") or not schedule.is_declared]
        for item in [*list_items(schedule, truth, url, index), *foreign]:
            dynamodb.put_item(TableName=name, Item=item | keys.make(item["pk"]["S"]))
    if schedule.markets:
        for item in list_items(schedule, truths[REGION], url, index):
            dynamodb.put_item(TableName=name, Item=item | Keys(NEIGHBOUR).make(item["pk"]["S"]))


def list_items(schedule: Schedule, truth: Truth, url: str, index: int) -> list[Item]:
    """Return what a schedule begins with in one market, apart from foreign items."""
    parameters: tuple[OrderType, Price, Detail] = (schedule.order_type, schedule.price, schedule.detail)
    if "other" in schedule.start:  # of the same types, or the shrink guard might refuse the first run
        parameters = (schedule.order_type, "min" if schedule.price == "max" else "max", "compact")
    items = list(truth.table(index, *parameters).values())
    if schedule.start in {"interrupted", "abandoned"}:
        items = items[: len(items) // 2]
    if schedule.start != "no snapshot":
        state = "complete" if schedule.start.startswith("complete") else "writing"
        owner = "host/1/dead" if schedule.start == "abandoned" else ""
        if schedule.is_declared:
            extreme: Literal["min", "max"] = "max" if parameters[1] == "max" else "min"
            items.append(describe_declared(url, index, state, extreme, len(items), owner))
        else:
            items.append(describe(index, state, parameters, len(items), owner, truth.market_id))
    return items


def describe(
    index: int,
    state: str,
    parameters: tuple[OrderType, Price, Detail],
    records: int,
    owner: str,
    market_id: int = REGION,
) -> Item:
    """Return an item `#snapshot` of a market."""
    blank = TableSnapshot(market_id=market_id, region_id=REGION, parameters=Parameters(*parameters))
    return fill_in(blank, index, state, records, owner)


def read_all(dynamodb: DynamoDBClient, name: str) -> dict[str, Item]:
    """Return all of a table, nothing if it is not there."""
    try:
        return {pk: comparable(item) for pk, item in scan(dynamodb, name).items()}
    except dynamodb.exceptions.ResourceNotFoundException:
        return {}


def read_markets(dynamodb: DynamoDBClient, name: str, schedule: Schedule) -> Markets:
    """Return all of a schedule's table by market."""
    if not schedule.markets:
        return {REGION: read_all(dynamodb, name)}
    try:
        return split_markets(scan_markets(dynamodb, name))
    except dynamodb.exceptions.ResourceNotFoundException:
        return {}


def run_at_once(flow: Flow, parameters: Mapping[str, object], number: int, outcome: Outcome) -> None:
    """Run the flow so many times at the same time; a run may fail, but only as one that says why.

    Raises:
        Exception: what is no failure of ESI or the table.
    """
    unexpected: list[Exception] = []

    def run() -> None:
        try:
            flow(**parameters)
        except (EsiError, TableError) as error:
            outcome.failed[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 (is raised below)
            unexpected.append(error)

    threads = [threading.Thread(target=contextvars.copy_context().run, args=(run,)) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcome.runs += number
    if unexpected:
        raise unexpected[0]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of the environment, and set them back."""
    kept = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def shrink(schedule: Schedule, flow: Flow = market_data) -> Schedule:
    """Leave out of a schedule that fails each fault without which it fails all the same."""
    for fault in schedule.faults:
        smaller = schedule.without(fault)
        try:
            play(smaller, flow)
        except WrongTableError:
            schedule = smaller
    return schedule
