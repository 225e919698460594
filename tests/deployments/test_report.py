"""The report, in a browser and as a command."""

import os
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from deployments.local.market.market import Market
from deployments.local.market.places import find_places
from deployments.report import main, render
from flows.market_data import market_data
from tasks.catalogue.names import type_name
from tasks.orders.choices import Parameters
from tasks.table.read import Record, read_records
from tasks.table.snapshot import TableSnapshot
from tests.support.browser import CHROMIUM, HEIGHT, WIDTH, open_page
from tests.support.programs import needs
from tests.support.summaries import STARTED, make_summary
from tests.support.truth import truth
from tests.support.worlds import VENAL

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")
in_a_browser = needs(CHROMIUM, "there is no chromium: apt-get install chromium")


@pytest.fixture
def report(table_name: str, tmp_path: Path) -> Path:
    """Return a report on a table and three runs."""
    market_data(VENAL, table_name)
    runs = [make_summary(number, written=100 * number + 7, price_changes={1: 2}) for number in (3, 2, 1)]
    file = tmp_path / "report.html"
    file.write_text(render(table_name, *read_records(table_name), runs), encoding="utf-8")
    return file


def read_column(page: Page, number: int) -> list[str]:
    """Return the cells of a column, of the visible records."""
    script = "(rows, number) => rows.filter(row => !row.hidden).map(row => row.cells[number].textContent)"
    cells: list[str] = page.locator("#records tbody tr").evaluate_all(script, number)
    return cells


def open_widths(report: Path, *widths: int) -> Iterator[tuple[Page, int]]:
    """Open a report in windows of several widths, one after another."""
    with open_page() as page:
        for width in widths:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            page.goto(report.as_uri())
            yield page, width


@in_a_browser
def test_report_shows_the_table(report: Path, market: Market) -> None:
    """The report shows every record and can be sorted and searched, on a wide screen and on a phone."""
    expected = truth(market, VENAL)
    for page, width in open_widths(report, WIDTH, 390):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [picture.evaluate("picture => picture.naturalWidth > 0") for picture in page.locator("img").all()] == [
            True
        ] * 4
        assert page.locator("#runs tbody tr").count() == 3
        assert dict(zip(read_column(page, 1), read_column(page, 2), strict=True)) == {
            pk: f"{float(item['price']['N']):,.2f}" for pk, item in expected.items()
        }
        for column, heading in enumerate(("type", "id", "price (ISK)", "volume")):
            for direction in ("ascending", "descending"):
                page.get_by_role("button", name=heading).click()
                expect(page.locator(f"th[aria-sort={direction}]")).to_have_text(heading)
                cells = read_column(page, column)
                numbers = [float(cell.replace(",", "")) for cell in cells] if column else []
                assert numbers == sorted(numbers, reverse=direction == "descending")
                assert column or cells[0].lower() <= cells[-1].lower() or direction == "descending"
        pk = next(iter(expected))
        page.get_by_label("Search").fill(pk)
        assert pk in read_column(page, 1)
        page.get_by_label("Search").fill(type_name(int(pk)).upper())
        assert set(read_column(page, 0)) >= {type_name(int(pk))}
        assert len(read_column(page, 0)) < len(expected)
        page.get_by_label("Search").fill("no such thing")
        expect(page.locator("#shown")).to_have_text("0")


SNAPSHOT = TableSnapshot(
    state="complete",
    market_id=VENAL,
    region_id=VENAL,
    parameters=Parameters("sell", "min", "compact"),
    last_modified=STARTED,
    pages=1,
    orders=1,
    records=1,
)
WIDE = Record(Decimal("5500000000000.07"), 29_713_104_352)
ONE_LINE = """cells => cells.every(cell => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return new Set([...range.getClientRects()].map(part => part.top)).size === 1;
})"""


@in_a_browser
def test_numbers_are_sorted_and_stay_whole(tmp_path: Path) -> None:
    """Ids are in numeric order, and no number breaks, however long, even on a small phone."""
    records = dict.fromkeys((11188, 1119, 11190, 34, 2), WIDE)
    file = tmp_path / "report.html"
    file.write_text(render("Market", records, SNAPSHOT, [make_summary(orders=12_345_678)]), encoding="utf-8")
    for page, width in open_widths(file, WIDTH, 420, 390, 360):
        assert read_column(page, 1) == ["2", "34", "1119", "11188", "11190"]
        numbers = page.locator("#records td:not(:first-child), #runs td, .number")
        assert numbers.count() == 5 * 3 + 10 + 5
        assert numbers.evaluate_all(ONE_LINE)
        seen = page.locator("#records td").evaluate_all(
            "cells => cells.map(cell => cell.getBoundingClientRect().right)"
        )
        assert max(seen) <= width


@pytest.mark.parametrize(
    ("number", "heading"),
    [
        (1, "The last run that stored something"),
        (2, "The last 2 runs that stored something"),
    ],
)
def test_one_is_singular(number: int, heading: str) -> None:
    """One run is "the last run", one record is "1 record"."""
    runs = [make_summary(each) for each in range(number)]
    html = render("Market", {34: WIDE}, SNAPSHOT, runs)
    assert heading in html
    assert not re.findall(r"\b1 (?:runs|records|orders|pages)\b", re.sub("<[^>]+>", "", html))


def test_report_is_self_contained(report: Path) -> None:
    """The report refers to no other address."""
    assert not re.findall(r"(?:https?:)?//[^\s/]+\.\w+", report.read_text(encoding="utf-8"))


def test_report_is_written(table_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes the report and prints where it is; without known runs it leaves them out."""
    market_data(VENAL, table_name)
    file = tmp_path / "report.html"
    assert main(["--table-name", table_name, "--file", str(file)]) == 0
    assert re.match(rf"{file}: [\d,]+ records, 0 runs, [\d,]+ KiB", capsys.readouterr().out)
    assert "that stored something" not in file.read_text(encoding="utf-8")
    assert "Orders from an unknown market" in file.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [file]
    assert main(["--table-name", table_name, "--file", str(file), "--made-up"]) == 0
    assert "they are made up" in file.read_text(encoding="utf-8")


def test_report_on_one_market_of_many(table_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report on a table with several markets has only the market given."""
    station = int(find_places(VENAL).location_ids[0])
    market_data(VENAL, table_name, key="market_type", markets=[VENAL, station])
    (records, _), (region, _) = read_records(table_name, station), read_records(table_name, VENAL)
    assert 0 < len(records) < len(region)
    file = tmp_path / "report.html"
    for market_id, found, name in ((station, records, f"station {station}"), (VENAL, region, "Venal (10000015)")):
        assert main(["--table-name", table_name, "--market", str(market_id), "--file", str(file)]) == 0
        assert f"{len(found):,} records, " in capsys.readouterr().out
        assert f"<h1>{name}</h1>" in file.read_text(encoding="utf-8")
    assert main(["--table-name", table_name, "--market", "60008494", "--file", str(file)]) == 1
    assert "has no market 60008494 in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("esi_url", "source"),
    [
        pytest.param("https://esi.evetech.net", "esi.evetech.net", id="ESI"),
        pytest.param("http://127.0.0.1:8", "127.0.0.1:8, not ESI: made up, unless it passes ESI's on", id="stand-in"),
        pytest.param("http://[::1]:8", "[::1]:8, not ESI: made up, unless it passes ESI's on", id="stand-in, IPv6"),
        pytest.param("http://localhost", "localhost, not ESI: made up, unless it passes ESI's on", id="no port"),
        pytest.param("", "", id="an earlier version"),
    ],
)
def test_summary_says_where_orders_come_from(esi_url: str, source: str) -> None:
    """A summary says where its orders come from, and whether they may be made up."""
    assert make_summary(esi_url=esi_url).source == source


def test_missing_table_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the table, the command prints the reason in one line and writes nothing."""
    assert main(["--table-name", "Nobodys-Table", "--file", str(tmp_path / "report.html")]) == 1
    assert "no report: table Nobodys-Table does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_only_regular_files_are_replaced(table_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe, like a device or a folder, is refused and left unchanged."""
    market_data(10000003, table_name)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["--table-name", table_name, "--file", str(pipe)]) == 1
    assert f"{pipe} is not a regular file, and would be replaced" in capsys.readouterr().err
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_invalid_number_of_runs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A number of runs outside the range is refused with the range."""
    with pytest.raises(SystemExit):
        main(["--runs", "0"])
    assert "argument --runs: '0': give 1 to 200" in capsys.readouterr().err
