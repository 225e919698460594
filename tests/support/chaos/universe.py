"""Plays faults against the flow `universe`: all regions and the five hubs in one table."""

import os
import random
import uuid
from collections import Counter
from functools import partial

import boto3

from flows.universe import universe
from tasks.catalogue.names import HUBS, regions
from tasks.reporting.universe_summary import RegionError
from tasks.table.errors import TableError
from tests.support.chaos.check import Truth, check_exact, check_markets, split_markets
from tests.support.chaos.market import SmallUniverse
from tests.support.chaos.outcome import Outcome
from tests.support.chaos.play import FIRST_INDEX, environment
from tests.support.chaos.schedule import draw_market_fault, draw_store_fault
from tests.support.faults.market import serve_faulty
from tests.support.faults.plan import Plan
from tests.support.faults.store import serve_faulty_store
from tests.support.tables import scan_markets
from tests.support.worlds import Clock

PARAMETERS = ("sell", "min", "compact")
FAULTS = 6  # of the market, and as many of the store


def play_universe(seed: int) -> Outcome:
    """Play a round with faults, which fills the table, and one of the next snapshot without.

    Raises:
        WrongTableError: see `tests.support.chaos.check`; or a market is not exact after the round without faults.
    """
    clock = Clock(FIRST_INDEX * 300.0 + 60)
    market = SmallUniverse(seed, clock)
    markets = {region_id: [region_id] for region_id in regions()}
    for hub_id, hub in HUBS.items():
        markets[hub.region_id].append(hub_id)
    truths = {each: Truth(market.markets[region_id], each) for region_id, ids in markets.items() for each in ids}
    draw, name = random.Random(seed), f"Chaos-{uuid.uuid4()}"
    outcome = Outcome(Counter([f"{len(truths)} of the universe"]))
    market_plan = Plan([draw_market_fault(draw) for _ in range(FAULTS)], seed)
    store_plan = Plan([draw_store_fault(draw) for _ in range(FAULTS)], seed)
    direct = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    dynamodb = boto3.client("dynamodb", endpoint_url=direct)
    play_round = partial(universe, table_name=name, key="market_type", markets=markets)
    with (
        serve_faulty(market, market_plan) as market_url,
        serve_faulty_store(direct, store_plan) as store_url,
        environment(ESI_URL=market_url, AWS_ENDPOINT_URL_DYNAMODB=store_url),
    ):
        try:
            outcome.failed["region of a round"] += play_round().failed
        except (RegionError, TableError) as error:
            outcome.failed[type(error).__name__] += 1
        check_markets({}, split_markets(scan_markets(dynamodb, name)), PARAMETERS, truths)
        market_plan.stop()
        store_plan.stop()
        clock.now += market.every
        assert not play_round().failed
        outcome.runs += 2
    check_exact(split_markets(scan_markets(dynamodb, name)), PARAMETERS, truths)
    dynamodb.delete_table(TableName=name)
    dynamodb.close()
    market.close()
    outcome.injected = market_plan.injected + store_plan.injected
    return outcome
