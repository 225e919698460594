"""The embedded stack: its command line, its output, and what the docs say about it."""

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
from deployments.local.processes import StackError
from deployments.local.run import print_summary
from deployments.local.show import show_table
from deployments.local.stack import Addresses, check_disk
from deployments.status import ROUNDS, SNAPSHOTS
from flows.market_data import market_data
from tasks.catalogue.names import regions


@pytest.mark.parametrize(
    ("store", "given", "running", "made_up"),
    [
        ("local", "", "http://127.0.0.1:5", True),
        ("local", "", "https://esi.evetech.net", False),
        ("local", "", "", True),
        ("local", "https://esi.evetech.net", "", False),
        ("aws", "", "", False),
    ],
)
def test_made_up_orders_are_recognized(
    store: Literal["local", "aws"], given: str, running: str, *, made_up: bool
) -> None:
    """A report calls orders made up if the running stack has them from the stand-in."""
    assert is_made_up(Options(DEFAULT_REGION, store, given), Addresses(1, running, "")) == made_up


def test_invalid_region_is_refused_at_once() -> None:
    """`REGION=Jita make run` starts nothing, prints the reason in one line, and fails."""
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
def test_help_lists_the_choices(name: str, options: str) -> None:
    """`--help` lists commands and options."""
    done = subprocess.run(
        [sys.executable, "-m", name, "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert options in done.stdout


def test_full_disk_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk without enough space is refused; the message has the space left and what to do."""
    check_disk(tmp_path)
    monkeypatch.setattr(stack, "FREE_BYTES", 2**60)
    with pytest.raises(StackError, match=r"has \d+ MiB left, the stack needs \d+ MiB: make room, or `make clean`"):
        check_disk(tmp_path)


@pytest.mark.usefixtures("api", "served", "store_url")
def test_table_is_whole_in_80_columns(
    table_name: str, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers and the words of names stay whole, and lines within 80 columns, in a terminal of any width."""
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
    """A run's summary has one line per row; words stay whole, even one longer than the line."""
    table_name = "MarketData-" + "a-10000002" * 20
    print_summary(f"| | |\n| --- | --- |\n| table | {table_name} |\n| pages | 7 |\n\nThe price {'is DynamoDB ' * 20}")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:3]] == [["table", table_name], ["pages", "7"]]
    assert not [line for line in lines if len(line) > 80 and table_name not in line]


def test_numbers_in_docs_are_right() -> None:
    """The numbers that the Makefile and the docs give for the stack are those in the code."""
    minutes = [f"{limit.total_seconds() / 60:.0f}" for limit in (SNAPSHOTS, ROUNDS)]
    numbers = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    started = set(
        re.findall(r'self\.start(?:_market)?\("(\w+)"', Path(CHECKOUT, "deployments/local/stack.py").read_text())
    )
    expected_by_place = {
        ("Makefile", r"each of the stack's (\w+) processes"): {numbers[len(started | {"flow run"})]},
        ("README.md", r"The Forge, (\d+) pages"): {str(regions()[10000002].pages)},
        ("docs/operating.md", r"older than (\d+) minutes, or (\d+) if the universe"): set(minutes),
        ("docs/operating.md", r"fresh data for (\d+) minutes, or (\d+) if the universe"): set(minutes),
        ("docs/machines.md", rf"and ({'|'.join(numbers)}) automations"): {numbers[len(read_automations())]},
        ("docs/reliability.md", r"below (\d+) MiB"): {f"{stack.FREE_BYTES / 2**20:.0f}"},
    }
    for (name, pattern), expected in expected_by_place.items():
        found = re.findall(pattern, Path(CHECKOUT, name).read_text())
        assert {number for each in found for number in ([each] if isinstance(each, str) else each)} == expected, name
