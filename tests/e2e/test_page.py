"""The page in a real browser: silent console, no request, numbers as stored, both themes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from seatrial.model.estimate import Estimate
from seatrial.model.summary import RunSummary
from seatrial.report.charts import build_figures
from tests.support.runs import small_run, summary_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.e2e

CHROMIUM = os.environ.get("SEATRIAL_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DRAWN_TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run, its summary and the page that the command line made of it."""

    run: Path
    page: Path
    summary: RunSummary


def _seatrial(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seatrial.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "python")},
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A scripted run, reported through the command line."""
    run = small_run(tmp_path_factory.mktemp("run"))
    done = _seatrial("report", str(run))
    assert done.returncode == 0, done.stderr
    return Report(run=run, page=run / "report.html", summary=summary_of(run))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium with a fresh profile."""
    if shutil.which(CHROMIUM) is None:
        # Whoever checks changes must not pass them without having opened the page.
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"{CHROMIUM} is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            env={"HOME": str(tmp_path_factory.mktemp("h"))},
        )
        yield started
        started.close()


@pytest.fixture(params=["light", "dark"])
def opened(
    request: pytest.FixtureRequest, browser: Browser, report: Report
) -> Iterator[tuple[Page, list[str], str]]:
    """The page in one colour scheme, drawn, with everything that it complained of or asked for."""
    context = browser.new_context(
        color_scheme=request.param, viewport={"width": 1280, "height": 900}
    )
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith(("file://", "data:", "blob:"))
            else troubles.append(f"request: {asked.url}")
        ),
    )
    page.goto(report.page.as_uri())
    page.wait_for_selector(f"html[data-drawn={request.param}]", timeout=DRAWN_TIMEOUT_MS)
    yield page, troubles, request.param
    context.close()


def test_page_is_silent_and_asks_for_nothing(opened: tuple[Page, list[str], str]) -> None:
    """No console message, no error, no request but the file itself."""
    page, troubles, _ = opened
    page.mouse.wheel(0, 4000)
    assert troubles == []


def test_every_figure_is_drawn(opened: tuple[Page, list[str], str], report: Report) -> None:
    """Each figure of the run is there as a picture with marks in it."""
    page, _, _ = opened
    for figure in build_figures(report.summary):
        chart = page.locator(f"[data-figure='{figure.name}'] svg.marks")
        assert chart.count() == 1, figure.name
        assert chart.locator("path").count() > 3, figure.name
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] > 200, figure.name


def test_tables_hold_the_stored_numbers(
    opened: tuple[Page, list[str], str], report: Report
) -> None:
    """Every number of every table equals an estimate of the summary, to the last bit."""
    page, _, _ = opened
    shown = page.eval_on_selector_all(
        "table.numbers td[data-value]",
        """cells => cells.map(cell => ({
            point: cell.closest("table").dataset.point,
            driver: cell.closest("tr").dataset.driver,
            ...cell.dataset,
        }))""",
    )
    stored = {
        (cell.point.key, cell.driver, cell.metric, cell.statistic.value): cell
        for cell in report.summary.cells
    }
    assert len(shown) > 50
    ratios = 0
    for place in shown:
        cell = stored[place["point"], place["driver"], place["metric"], place["statistic"]]
        assert isinstance(cell.estimate, Estimate)
        numbers = [float(place[name]) for name in ("value", "low", "high")]
        assert numbers == [cell.estimate.point, cell.estimate.low, cell.estimate.high]
        if "ratio" in place:
            assert isinstance(cell.ratio, Estimate)
            assert (float(place["ratio"]), place["verdict"]) == (cell.ratio.point, cell.verdict)
            ratios += 1
    assert ratios > 10


def test_findings_come_first_and_the_theme_fits(
    opened: tuple[Page, list[str], str], tmp_path: Path
) -> None:
    """Findings stand above every number; the paper has the scheme's colour; a picture is kept."""
    page, _, scheme = opened
    findings = page.locator("#findings").bounding_box()
    table = page.locator("table.numbers").first.bounding_box()
    assert findings is not None
    assert table is not None
    assert findings["y"] < table["y"]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(252, 252, 250)", "dark": "rgb(17, 22, 27)"}[scheme]
    width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], "the page itself never scrolls sideways"
    picture = tmp_path / f"page-{scheme}.png"
    picture.write_bytes(page.screenshot(full_page=True))
    assert picture.stat().st_size > 50_000


def test_theme_can_be_chosen(browser: Browser, report: Report) -> None:
    """The button leads from automatic to light to dark, and figures follow."""
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    page.goto(report.page.as_uri())
    page.wait_for_selector("html[data-drawn=light]", timeout=DRAWN_TIMEOUT_MS)
    label = "[data-figure=glance] svg.marks g.role-axis-label text"
    before = page.locator(label).first.get_attribute("fill")
    page.click("#theme")
    page.wait_for_selector("html[data-theme=light][data-drawn=light]", timeout=DRAWN_TIMEOUT_MS)
    page.click("#theme")
    page.wait_for_selector("html[data-theme=dark][data-drawn=dark]", timeout=DRAWN_TIMEOUT_MS)
    assert page.locator(label).first.get_attribute("fill") != before
    context.close()


def test_paper_shows_what_the_screen_folds(browser: Browser, report: Report) -> None:
    """What is folded is open while it is printed, and only then; dark ink is not printed."""
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(report.page.as_uri())
    page.wait_for_selector("html[data-drawn=dark]", timeout=DRAWN_TIMEOUT_MS)
    parts = "main details:not(.data, .vega-embed details):not([open])"
    folded = f"() => document.querySelectorAll('{parts}').length"
    columns = """[...document.querySelectorAll("table.numbers:not([hidden])")]
        .map(table => table.rows[0].cells.length)"""
    page.evaluate(f"""() => window.addEventListener("beforeprint", () => {{
        window.foldedInPrint = ({folded})();
        window.columnsInPrint = {columns};
    }})""")
    before, widths = page.evaluate(folded), page.evaluate(columns)
    page.pdf()
    assert before > 0
    assert page.evaluate("window.foldedInPrint") == 0
    assert page.evaluate(folded) == before
    printed = page.evaluate("window.columnsInPrint")
    assert max(widths) > 9 >= max(printed)
    # No column is lost: each part of a table has the names of its rows again.
    assert sum(printed) - len(printed) == sum(widths) - len(widths)
    assert page.evaluate(columns) == widths
    page.emulate_media(media="print")
    assert page.locator("details.metrics table").is_visible()
    ink = "[...document.querySelectorAll('.chart svg text')].map(one => getComputedStyle(one).fill)"
    dark = {"rgb(228, 232, 235)", "rgb(155, 167, 178)"}
    assert dark.isdisjoint(page.evaluate(ink))
    page.emulate_media(media="screen")
    assert dark & set(page.evaluate(ink))
    context.close()


def test_page_reads_without_scripts(browser: Browser, report: Report) -> None:
    """Tables, findings and method are in the file itself, not made by scripts."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.page.as_uri())
    text = page.inner_text("main")
    assert "Findings" in text
    assert "slower" in text
    assert "Machine, versions, request" in text
    context.close()


def test_every_format_comes_from_the_command_line(report: Report) -> None:
    """Each format is printed alone on standard output; figures are written on request."""
    done = _seatrial("report", str(report.run), "--json", "--no-html")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_id"] == report.summary.run_id
    for form, begin in (("csv", "run_id,bench"), ("markdown", "# scripted")):
        done = _seatrial("report", str(report.run), "--format", form, "--no-html")
        assert done.stdout.startswith(begin), done.stderr
    done = _seatrial("report", str(report.run), "--no-html", "--figures")
    assert done.returncode == 0, done.stderr
    target = report.run / "figures"
    figures = build_figures(report.summary)
    assert {path.name for path in target.iterdir()} == {
        f"{figure.name}.{suffix}" for figure in figures for suffix in ("svg", "png", "csv")
    }


def test_compare_tells_a_regression_by_its_exit_code(report: Report, tmp_path: Path) -> None:
    """0 against itself, 1 against a slower one, 3 where there is no run."""
    from tests.support.runs import BLOCKS
    from tests.support.synthetic import Script

    slower = small_run(tmp_path, script=Script(blocks=BLOCKS, scale={"bwrap": 2.0}))
    same = _seatrial("compare", str(report.run), str(report.run))
    assert same.returncode == 0, same.stderr
    worse = _seatrial("compare", str(report.run), str(slower))
    assert worse.returncode == 1, worse.stderr
    assert "▼ slower" in worse.stdout
    assert "not interleaved" in worse.stdout
    missing = _seatrial("compare", str(report.run), str(tmp_path / "nowhere"))
    assert missing.returncode == 3
    assert "there is no directory" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.fixture(scope="module")
def load_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one load with failures, made by the command line."""
    directory = tmp_path_factory.mktemp("load") / "kept"
    words = ["--rate", "800/s", "--duration", "3s", "-c", "2", "--timeout", "4ms", "--quiet"]
    done = _seatrial("load", "fake://?service=exponential:1ms", *words, "--out", str(directory))
    assert done.returncode == 0, done.stderr
    return directory / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_load_is_drawn_silently(
    scheme: str, width: int, browser: Browser, load_page: Path
) -> None:
    """Both themes, wide and narrow: figures with lines in them, no message, nothing sticks out."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(load_page.as_uri())
    page.wait_for_selector(f"html[data-drawn={scheme}]", timeout=DRAWN_TIMEOUT_MS)
    assert troubles == []
    assert page.locator("svg.marks").count() == 3
    for chart in page.locator("svg.marks").all():
        assert chart.locator("path[aria-roledescription='line mark']").count() >= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "timeout" in page.locator("#failures").inner_text()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_paper_holds_every_figure_and_its_data(
    scheme: str, browser: Browser, report: Report
) -> None:
    """At the width of a telephone nothing sticks out, and a figure opens what it is drawn from."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 900})
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(report.page.as_uri())
    page.wait_for_selector(f"html[data-drawn={scheme}]", timeout=DRAWN_TIMEOUT_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    figure = page.locator("#figure-start-makespan")
    figure.locator("details.data > summary").click()
    shown = figure.locator("details.data table tr")
    shown.nth(1).wait_for()
    makespans = [
        cell
        for cell in report.summary.cells
        if (cell.metric, cell.statistic.value) == ("start_makespan_ns", "p50")
        and cell.driver != "floor"
    ]
    assert shown.count() == 1 + len(makespans)
    assert troubles == []
    context.close()
