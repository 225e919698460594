"""A market that has shrunk is not written over one that has not."""

import pytest

from tasks.esi.markets import find_market
from tasks.table.guards import ShrinkError, refuse_shrunk
from tasks.table.records import Changes, compare
from tests.support.tables import items, rows


def stored(left: int, gone: int, new: int = 0) -> Changes:
    """Return the changes of a table of which so many records are left, every second with another price."""
    present = items({str(n): 1 for n in range(1, left + gone + 1)})
    return compare(rows({n: n % 2 + 1 for n in [*range(1, left + 1), *range(10**6, 10**6 + new)]}), present)


@pytest.mark.parametrize(
    ("left", "gone", "new"),
    [(21, 21, 0), (20, 20, 0), (0, 20, 0), (1, 20, 0), (150, 150, 0), (0, 1, 0), (1, 2, 0), (0, 0, 0), (0, 0, 900)],
)
def test_half_of_the_records_or_a_handful_may_go(left: int, gone: int, new: int) -> None:
    """A snapshot is stored that leaves half of the table's records or more, or takes twenty or fewer."""
    refuse_shrunk(stored(left, gone, new), str(find_market(10000002)))


@pytest.mark.parametrize(("left", "gone", "new"), [(20, 21, 0), (0, 21, 0), (149, 151, 0), (0, 300, 300), (9, 21, 40)])
def test_under_half_of_the_records_is_refused(left: int, gone: int, new: int) -> None:
    """One that leaves under half and takes more is refused, however many records of other types come instead."""
    message = (
        f"region 10000002 has {left + new} records, the table {left + gone}: under half of them, {left}, would be "
        "left, so nothing was written; if the market is right, run with force"
    )
    with pytest.raises(ShrinkError, match=f"^{message}$"):
        refuse_shrunk(stored(left, gone, new), str(find_market(10000002)))
