"""The shrink guard: a snapshot that lost most of its records is not stored."""

import pytest

from tasks.esi.markets import find_market
from tasks.table.guards import ShrinkError, refuse_shrunk
from tasks.table.records import Changes, compare
from tests.support.tables import items, rows


def stored(left: int, gone: int, new: int = 0) -> Changes:
    """Return changes that leave so many records, every second one with a new price, delete some and add others."""
    present = items({str(n): 1 for n in range(1, left + gone + 1)})
    return compare(rows({n: n % 2 + 1 for n in [*range(1, left + 1), *range(10**6, 10**6 + new)]}), present)


@pytest.mark.parametrize(
    ("left", "gone", "new"),
    [(21, 21, 0), (20, 20, 0), (0, 20, 0), (1, 20, 0), (150, 150, 0), (0, 1, 0), (1, 2, 0), (0, 0, 0), (0, 0, 900)],
)
def test_half_of_the_records_or_a_handful_may_go(left: int, gone: int, new: int) -> None:
    """A snapshot may delete up to half of the table's records, or up to twenty."""
    refuse_shrunk(stored(left, gone, new), str(find_market(10000002)))


@pytest.mark.parametrize(("left", "gone", "new"), [(20, 21, 0), (0, 21, 0), (149, 151, 0), (0, 300, 300), (9, 21, 40)])
def test_under_half_of_the_records_is_refused(left: int, gone: int, new: int) -> None:
    """One that deletes more is refused, however many records of new types it adds."""
    message = (
        f"region 10000002 has {left + new} records, the table {left + gone}: under half of them, {left}, would be "
        "left, so nothing was written; if the market is right, run with force"
    )
    with pytest.raises(ShrinkError, match=f"^{message}$"):
        refuse_shrunk(stored(left, gone, new), str(find_market(10000002)))
