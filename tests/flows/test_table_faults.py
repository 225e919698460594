"""What a run does if the table misbehaves or has odd items, case by case, with real servers and sockets."""

import threading

import msgspec
import pytest

from tasks.table import lease
from tasks.table.errors import TableError, TransientTableError
from tasks.table.guards import ShrinkError
from tasks.table.lease import LeaseHeldError
from tests.support.chaos.check import FOREIGN
from tests.support.chaos.market import REGION, SmallMarket
from tests.support.chaos.play import hurry
from tests.support.faults.plan import Fault
from tests.support.faults.world import World
from tests.support.tables import records

pytestmark = pytest.mark.usefixtures("store_url", "api")


@pytest.mark.parametrize("kind", ["throttled", "reset", "answer lost", "answer cut", "HTML"])
@pytest.mark.parametrize("operations", [("GetItem", "Scan"), ("PutItem", "BatchWriteItem")], ids=" and ".join)
def test_failing_table_is_retried(world: World, operations: tuple[str, ...], kind: str) -> None:
    """Transiently failing calls to the table are retried, and the table is exact."""
    world.fill()
    world.move_on()
    summary = world.run(store=tuple(Fault(kind, where=operation, times=3) for operation in operations))
    assert world.is_exact()
    assert summary.retries >= len(operations)


def test_unprocessed_writes_are_all_resent(world: World) -> None:
    """Writes that are repeatedly left unprocessed are stored in the end."""
    world.run(store=(Fault("most unprocessed", where="BatchWriteItem", times=12),))
    assert world.is_exact()


def test_denied_access_fails_at_once(world: World) -> None:
    """A denied write is not retried; the table is left `writing`, and the next run repairs it."""
    world.fill()
    world.move_on()
    with pytest.raises(TableError, match=f"table {world.table_name}: .*AccessDenied") as caught:
        world.run(store=(Fault("denied", where="BatchWriteItem", times=99),))
    assert not isinstance(caught.value, TransientTableError)
    assert (world.read_snapshot().state, world.read_snapshot().owner) == ("writing", "")
    world.run()
    assert world.is_exact()


def test_snapshot_with_only_the_common_attributes_is_read(world: World) -> None:
    """A `#snapshot` without this version's new attributes is accepted, and the next run is differential."""
    world.run()
    stored = world.items()["#snapshot"]
    for name in ("expires", "owner", "lease", "etag"):
        del stored[name]
    world.put(stored)
    assert world.run().not_modified
    world.move_on()
    summary = world.run()
    assert 0 < summary.written < summary.records
    unknown = {"parameters": {"M": {"price": {"S": "unheard of"}}}}
    world.put(stored | {"market_id": {"N": "10000002"}} | unknown)
    with pytest.raises(TableError, match=f"holds region 10000002, not {REGION}: .*MarketData-{{region_id}}.*force"):
        world.run()
    world.put(stored | unknown | {"last_modified": {"S": "Tue, 24 Nov 2026 10:00:00 GMT"}})
    assert world.run().written == 0
    assert world.is_exact()


def test_foreign_items_are_counted_and_left_alone(world: World) -> None:
    """Foreign items stay as they are, and the summary counts them; an item type's item without a price is replaced."""
    world.fill()
    for item in FOREIGN.values():
        world.put(item)
    world.put({"pk": {"S": "35"}, "text": {"S": "no record"}})
    world.put({"pk": {"S": "999999"}})
    world.move_on()
    assert world.run().foreign == len(FOREIGN)
    assert world.is_exact()
    assert {pk: world.items()[pk] for pk in FOREIGN} == FOREIGN


def test_empty_region_does_not_empty_a_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region without a single order leaves a table of many records alone, whatever `#snapshot` says."""
    world.fill()
    before = world.items()
    world.move_on()
    monkeypatch.setattr(SmallMarket, "orders", lambda _market, _index: [])
    with pytest.raises(ShrinkError, match=r"has 0 records, the table \d+: under half"):
        world.run()
    with pytest.raises(ShrinkError, match=r"has 0 records, the table \d+: under half of them, 0, would be left"):
        world.run(price="max")
    assert world.items() == before
    assert world.run(force=True).deleted == len(records(before))


def test_two_runs_at_once_do_not_interleave(world: World) -> None:
    """Of several runs at once, one writes; the others wait, and find nothing left to write."""
    world.run(price="max")
    summaries = world.run_at_once(3)
    assert world.is_exact()
    assert sum(summary.written > 0 for summary in summaries) == 1


def test_live_lease_fails_the_run_that_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has waited two minutes for a lease fails, and names its holder."""
    monkeypatch.setattr(lease, "WAIT_SECONDS", 0.6)
    world.fill()
    world.move_on()
    held = msgspec.structs.replace(world.read_snapshot(), state="writing", owner="elsewhere/1/run")
    done = threading.Event()

    def renew() -> None:
        for count in range(10, 1000):
            if done.wait(0.05):
                return
            world.put(msgspec.structs.replace(held, lease=count).to_item())

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(LeaseHeldError, match="is being written by elsewhere/1/run .*this run wrote nothing"):
            world.run()
    finally:
        done.set()
        thread.join()
    assert world.read_snapshot().owner == "elsewhere/1/run"


def test_dead_lease_is_taken_over(world: World) -> None:
    """A killed owner's lease is taken over once it has stood still for a minute, here three seconds."""
    world.fill()
    world.move_on()
    world.put(
        msgspec.structs.replace(world.read_snapshot(), state="writing", owner="elsewhere/1/dead", lease=9).to_item()
    )
    with hurry(standstill_seconds=3.0):
        summary = world.run()
        assert summary.seconds > lease.STANDSTILL_SECONDS == 3.0
    assert world.is_exact()
    assert summary.waiting_seconds > 0
