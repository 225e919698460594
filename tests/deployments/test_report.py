"""The report, as a browser shows it."""

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from deployments.local.market.market import Market
from deployments.report import main, render
from flows.market_data import market_data
from tasks.names import type_name
from tasks.read_records import read_records
from tests.browser import CHROMIUM, WIDTH, open_page
from tests.flows.test_market_data import VENAL, truth
from tests.tasks.test_pictures import make_run

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")


@pytest.fixture
def report(table_name: str, tmp_path: Path) -> Path:
    """A report of a whole table and three runs."""
    market_data(VENAL, table_name)
    runs = [make_run(number, written=100 * number + 7, price_changes={1: 2}) for number in (3, 2, 1)]
    file = tmp_path / "report.html"
    file.write_text(render(table_name, *read_records(table_name), runs), encoding="utf-8")
    return file


def read_column(page: Page, number: int) -> list[str]:
    """Gives the cells of a column of the records that are shown."""
    script = "(rows, number) => rows.filter(row => !row.hidden).map(row => row.cells[number].textContent)"
    cells: list[str] = page.locator("#records tbody tr").evaluate_all(script, number)
    return cells


@in_a_browser
@pytest.mark.parametrize("width", [WIDTH, 390])
def test_report_shows_the_table(report: Path, market: Market, width: int) -> None:
    """It shows every record, sorted and searched at a click, on a wide screen and on a phone."""
    expected = truth(market, VENAL)
    with open_page(width) as page:
        page.goto(report.as_uri())
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


def test_report_needs_nothing_else(report: Path) -> None:
    """There is no outside address in it."""
    assert not re.findall(r"(?:https?:)?//[^\s/]+\.\w+", report.read_text(encoding="utf-8"))


def test_report_is_written(table_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes it, says where it is, and with no runs known leaves them out."""
    market_data(VENAL, table_name)
    file = tmp_path / "report.html"
    assert main(["--table-name", table_name, "--file", str(file)]) == 0
    assert re.match(rf"{file}: [\d,]+ records, 0 runs, [\d,]+ KiB", capsys.readouterr().out)
    assert "runs that stored" not in file.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [file]


def test_missing_table_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in the way is said in a line, and nothing is written."""
    assert main(["--table-name", "Nobodys-Table", "--file", str(tmp_path / "report.html")]) == 1
    assert "no report: table Nobodys-Table does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_is_not_replaced(table_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe, as a device or a folder, is refused before anything is read, and stays what it is."""
    market_data(10000003, table_name)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["--table-name", table_name, "--file", str(pipe)]) == 1
    assert f"{pipe} is no regular file, and would be replaced" in capsys.readouterr().err
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_wrong_option_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A number of runs that cannot be shown is refused, with what can."""
    with pytest.raises(SystemExit):
        main(["--runs", "0"])
    assert "argument --runs: '0': give 1 to 200" in capsys.readouterr().err
