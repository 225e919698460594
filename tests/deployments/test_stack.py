"""The embedded stack: what it is given, what it starts, and that nothing of it stays."""

import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.automations import read_automations
from deployments.local import stack
from deployments.local.commands import is_made_up
from deployments.local.environment import (
    CHECKOUT,
    DEFAULT_REGION,
    Options,
)
from deployments.local.run import print_summary
from deployments.local.show import show_table
from deployments.local.stack import Addresses, StackError, check_disk
from deployments.status import ROUNDS, SNAPSHOTS
from flows.market_data import market_data
from tasks.catalogue.names import regions


@pytest.mark.parametrize(
    ("store", "asked", "found", "made_up"),
    [
        ("local", "", "http://127.0.0.1:5", True),
        ("local", "", "https://esi.evetech.net", False),
        ("local", "", "", True),
        ("local", "https://esi.evetech.net", "", False),
        ("aws", "", "", False),
    ],
)
def test_orders_are_those_of_the_stack(
    store: Literal["local", "aws"], asked: str, found: str, *, made_up: bool
) -> None:
    """A report calls orders made up where the stack that is up has them from the stand-in."""
    assert is_made_up(Options(DEFAULT_REGION, store, asked), Addresses(1, found, "")) == made_up


def test_bad_region_ends_make_at_once() -> None:
    """`REGION=Jita make run` starts nothing, says why in one line, and fails."""
    command = [sys.executable, "-m", "deployments.local", "run"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=os.environ | {"REGION": "Jita"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "REGION is 'Jita': give a region's id, such as 10000002 for The Forge\n"


@pytest.mark.parametrize(
    ("name", "options"),
    [("deployments.local", "{run,up,shell,table,status,report}"), ("deployments.local.market", "--every")],
)
def test_help_explains(name: str, options: str) -> None:
    """`--help` names the choices."""
    done = subprocess.run(
        [sys.executable, "-m", name, "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert options in done.stdout


def test_full_disk_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk with too little room is refused, with how much there is and what to do."""
    check_disk(tmp_path)
    monkeypatch.setattr(stack, "FREE_BYTES", 2**60)
    with pytest.raises(StackError, match=r"has \d+ MiB left, the stack needs \d+ MiB: make room, or `make clean`"):
        check_disk(tmp_path)


@pytest.mark.usefixtures("api", "served", "store_url")
def test_table_is_whole_in_80_columns(
    table_name: str, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number and no word of a name is broken, cut or longer than the line, in however narrow a terminal."""
    monkeypatch.setenv("COLUMNS", "30")
    market_data(10000003, table_name)
    number = "12345678901234567.89"
    for pk in ("34", "23055"):  # the second has a long name
        item = {"pk": {"S": pk}, "price": {"N": number}, "volume": {"N": "9876543210987654"}}
        dynamodb.put_item(TableName=table_name, Item=item)
    capsys.readouterr()
    show_table(table_name, "")
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if len(line) > 80]
    rows = [line for line in lines if f"{Decimal(number):,.2f}  9,876,543,210,987,654  " in line]
    assert len(rows) == 2
    assert any(line.endswith("  Tritanium") for line in rows)


def test_summary_is_whole_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """A run's summary has a row a line, whose words stay whole even if one is longer than the line."""
    table_name = "MarketData-" + "a-10000002" * 20
    print_summary(f"| | |\n| --- | --- |\n| table | {table_name} |\n| pages | 7 |\n\nThe price {'is DynamoDB ' * 20}")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:3]] == [["table", table_name], ["pages", "7"]]
    assert not [line for line in lines if len(line) > 80 and table_name not in line]


def test_docs_count_right() -> None:
    """What the Makefile and the docs count of the stack is what there is."""
    minutes = [f"{limit.total_seconds() / 60:.0f}" for limit in (SNAPSHOTS, ROUNDS)]
    numbers = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    started = set(re.findall(r'self\.start\("(\w+)"', Path(CHECKOUT, "deployments/local/stack.py").read_text()))
    counted = {
        ("Makefile", r"each of the stack's (\w+) processes"): {numbers[len(started | {"flow run"})]},
        ("README.md", r"The Forge, (\d+) pages"): {str(regions()[10000002].pages)},
        ("docs/operating.md", r"older than (\d+) minutes, or (\d+) if the universe"): set(minutes),
        ("docs/operating.md", r"fresh data for (\d+) minutes, or (\d+) if the universe"): set(minutes),
        ("docs/machines.md", rf"and ({'|'.join(numbers)}) automations"): {numbers[len(read_automations())]},
        ("docs/reliability.md", r"below (\d+) MiB"): {f"{stack.FREE_BYTES / 2**20:.0f}"},
    }
    for (name, pattern), expected in counted.items():
        found = re.findall(pattern, Path(CHECKOUT, name).read_text())
        assert {number for each in found for number in ([each] if isinstance(each, str) else each)} == expected, name
