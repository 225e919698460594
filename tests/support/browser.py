"""A look at a run in Prefect's UI, by Debian's Chromium: what a person clicks through must be there.

REGION=10000002 make up                          in one shell, until it has stored a second snapshot
.venv/bin/python -m tests.support.browser docs/images    in another: takes the README's pictures
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from playwright.sync_api import ConsoleMessage, Page, Route, expect, sync_playwright

from deployments.local.stack import read_addresses
from tasks.reporting import pictures
from tests.support.pixels import find_pixels
from tests.support.servers import wait_for

CHROMIUM = shutil.which("chromium")
WIDTH, HEIGHT = 1400, 900
STATES = ("Get Page Count", "Build Iterator", "Fetch Pages", "Aggregate", "Store Records")
GREEN = "#219d4b"  # a completed task run in the graph
# What the UI of Prefect 3.8 asks its own server for in vain, whatever has run.
PREFECTS_OWN = re.compile(r"favicon.*\.(ico|png)|(undefined|completed)\.svg|api/task_runs/filter")


@contextmanager
def open_page(width: int = WIDTH, height: int = HEIGHT) -> Iterator[Page]:
    """Open a page in a browser that sees this machine alone.

    Raises:
        AssertionError: in the end, if there was an error in its console.
    """
    errors: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        url = message.location.get("url", "")
        if message.type == "error" and not PREFECTS_OWN.search(url):
            errors.append(f"{message.text} {url}")

    with sync_playwright() as driver, TemporaryDirectory() as home:
        environ: dict[str, str | float | bool] = {
            **os.environ,
            "HOME": home,
            "XDG_CACHE_HOME": home,
            "XDG_CONFIG_HOME": home,
        }
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], env=environ)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.route(re.compile(r"https?://(?!127\.0\.0\.1[:/])"), answer_nothing)
        page.on("console", hear)
        page.on("pageerror", lambda error: errors.append(str(error)))
        try:
            yield page
        finally:
            browser.close()
    assert not errors, f"in the console: {'; '.join(errors)}"


def answer_nothing(route: Route) -> None:
    """Answer a request to another machine, such as the UI's own statistics."""
    route.fulfill(status=204)


def look_at_run(ui_url: str, run_name: str, folder: Path) -> None:
    """Click from the dashboard through a run, its graph, its states and its artifacts, and take pictures.

    Args:
        ui_url: of Prefect's server.
        run_name: of a run that wrote what differs from the snapshot before, and its region's last.
        folder: gets `dashboard.png`, `run.png`, `artifacts.png` and `summary.png`.

    Raises:
        AssertionError: something of it is missing, or there was an error in the console.
    """
    movers, summary = (f"{kind}-{run_name.split(maxsplit=1)[0]}" for kind in ("movers", "summary"))
    with open_page() as page:
        page.goto(ui_url)
        take(page, "Flow Runs", folder / "dashboard.png")  # whose figures end with the last whole minute
        click(page, "Runs")
        click(page, run_name)
        page.get_by_role("tab", name="Artifacts").click()
        wait_for(lambda: find_pixels(page.screenshot(), GREEN, 8).sum() > 1000, "a completed task run in the graph")
        take(page, movers, folder / "run.png")
        page.get_by_role("tab", name="Task Runs").click()
        links = [page.get_by_role("link", name=re.compile(f"^{state}")).first for state in STATES]
        for address in [link.get_attribute("href") for link in links]:
            page.goto(f"{ui_url}{address}")
            expect(page.get_by_text("Completed").first).to_be_visible()
        page.goto(f"{ui_url}/v2/artifacts")
        take(page, movers, folder / "artifacts.png")
        for key, shown in ((movers, "ISK on offer"), (summary, "write units")):
            page.goto(f"{ui_url}/v2/artifacts")
            click(page, re.compile(key))
            click(page, re.compile(r"^[0-9a-f]{8}$"))  # the newest
            expect(page.get_by_text(shown).first).to_be_visible()
        for title in ("Seconds by state", "Age of the data", "Records written", "Price changes"):
            picture = page.get_by_role("img", name=title)
            expect(picture, title).to_have_js_property("naturalWidth", pictures.WIDTH)
        page.set_viewport_size({"width": WIDTH, "height": 2 * HEIGHT})
        take(page, "write units", folder / "summary.png")


def run_from_form(ui_url: str, deployment_id: str, titles: Sequence[str], shown: Sequence[str]) -> None:
    """Start a run from a deployment's form, unchanged.

    Args:
        ui_url: of Prefect's server, or of its new UI.
        deployment_id: of the deployment.
        titles: of the fields that the form must have.
        shown: what must be in one of them.

    Raises:
        AssertionError: something of it is missing, or there was an error in the console.
    """
    with open_page() as page:
        page.goto(f"{ui_url}/deployments/deployment/{deployment_id}/run")
        for title in titles:
            expect(page.get_by_text(re.compile(rf"^{title}( \(Optional\))?$", re.IGNORECASE)).first).to_be_visible()
        for text in shown:
            expect(page.get_by_text(text).first).to_be_visible()
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("button", name="Submit")).to_have_count(0)


def click(page: Page, name: str | re.Pattern[str]) -> None:
    """Click the first link of a name."""
    page.get_by_role("link", name=name).first.click()


def take(page: Page, text: str, picture: Path) -> None:
    """Take a picture of a page when it shows a text and ask for nothing more."""
    expect(page.get_by_text(text).first).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.screenshot(path=picture, animations="disabled")


def find_run(ui_url: str) -> str:
    """Return the name of the last run that left movers."""
    wanted = {"artifacts": {"key": {"like_": "movers-"}}, "sort": "CREATED_DESC", "limit": 1}
    with httpx.Client(base_url=f"{ui_url}/api", trust_env=False) as api:
        (movers,) = api.post("/artifacts/filter", json=wanted).raise_for_status().json()
        return str(api.get(f"/flow_runs/{movers['flow_run_id']}").raise_for_status().json()["name"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m tests.support.browser", description="Takes pictures of the stack that is up."
    )
    parser.add_argument("folder", type=Path)
    addresses = read_addresses()
    if addresses is None:
        sys.exit("no stack is up: `REGION=10000002 make up` in another shell")
    look_at_run(addresses.ui_url, find_run(addresses.ui_url), parser.parse_args().folder)
