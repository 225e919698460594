"""Table names that DynamoDB accepts."""

import pytest

from tasks.table.requests import check_table_name


@pytest.mark.parametrize("name", ["Abc", "MarketData-10000002", "a.b_c-d", "x" * 255])
def test_good_name_passes(name: str) -> None:
    """Names that DynamoDB accepts are returned unchanged."""
    assert check_table_name(name) == name


@pytest.mark.parametrize("name", ["", "ab", "a b", "Markt/Daten", "Märkte", "x" * 256, "MarketData\n"])
def test_bad_name_is_refused(name: str) -> None:
    """Names that DynamoDB does not accept are refused."""
    with pytest.raises(ValueError, match="table_name is .*: give 3 to 255 letters"):
        check_table_name(name)
