"""Numbers that a finding weighs on say so wherever they are shown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import TYPE_CHECKING

import pytest
import vl_convert
from rich.console import Console

from seatrial.analysis.evidence import TrialEvidence
from seatrial.analysis.marks import mark_cells
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.finding import FINDING_CODES, Finding, Severity
from seatrial.model.plan import Point, TrialSpec
from seatrial.model.summary import Cell, Statistic, Verdict
from seatrial.model.trial import TrialStatus
from seatrial.report.export import to_csv, to_json, to_markdown
from seatrial.report.layout import Show
from seatrial.report.page import render_page
from seatrial.report.text import render_text
from seatrial.report.view import make_entry, short_reason
from tests.support.runs import small_run, summary_of

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.summary import RunSummary

OPEN = Point(bench="load", values={"mode": "open", "connections": 1, "rate_rps": 100.0})
OTHER = Point(bench="load", values={"mode": "closed", "connections": 1})
MARKS = ("generator-bound", "not-stationary")
ESTIMATE = Estimate(point=2.0, low=1.0, high=3.0, confidence=0.95, n=9, method="m", unit="ns")


def cell(metric: str, *, point: Point = OPEN, driver: str = "runc") -> Cell:
    """A number at a point."""
    return Cell(
        bench="load",
        point=point,
        driver=driver,
        metric=metric,
        statistic=Statistic.P50,
        estimate=ESTIMATE,
        ratio=None,
        verdict=Verdict.NOT_JUDGED,
        n=9,
        blocks_count=3,
    )


def trial(*codes: str, severity: Severity = Severity.WARNING) -> TrialEvidence:
    """A trial of runc in the open loop, with findings."""
    return TrialEvidence(
        spec=TrialSpec(trial_id="t0001", index=0, block=0, driver="runc", point=OPEN, seed=1),
        status=TrialStatus.OK,
        reason=None,
        findings=tuple(Finding(code=code, severity=severity, message="why") for code in codes),
        samples={},
        sentinel_ns=(),
        foreign_cpu_ratios=(),
        steal_ratios=(),
    )


@pytest.mark.parametrize(
    ("codes", "metric", "marks"),
    [
        (("generator-bound",), "response_time_ns", ("generator-bound",)),
        (("generator-bound",), "achieved_rps", ("generator-bound",)),
        (("generator-bound",), "request_cpu_ns", ()),
        (("saturated",), "service_time_ns", ("saturated",)),
        (("saturated",), "achieved_rps", ()),
        (("not-stationary",), "wire_time_ns", ("not-stationary",)),
        (
            ("not-stationary", "generator-bound"),
            "send_lag_ns",
            ("generator-bound", "not-stationary"),
        ),
        (("request-failures",), "response_time_ns", ()),
    ],
)
def test_a_finding_marks_the_numbers_that_it_changes(
    codes: tuple[str, ...], metric: str, marks: tuple[str, ...]
) -> None:
    """The worst first; a saturated service still has a peak rate."""
    (marked,) = mark_cells([cell(metric)], [trial(), trial(*codes)])
    assert marked.marks == marks


def test_marks_stay_at_their_driver_and_point_and_remarks_give_none() -> None:
    """Neither another driver, nor another point, nor a remark is anybody's fault."""
    name = "response_time_ns"
    cells = [cell(name, driver="crun"), cell(name, point=OTHER)]
    assert [one.marks for one in mark_cells(cells, [trial("saturated")])] == [(), ()]
    (kept,) = mark_cells([cell(name)], [trial("generator-bound", severity=Severity.INFO)])
    assert kept.marks == ()


@pytest.fixture(autouse=True, scope="module")
def _javascript() -> None:
    """Starts the runtime that draws figures; it keeps threads and descriptors for good."""
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": [{}]}})
    vl_convert.javascript_bundle("")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A run in which one runtime's response times are marked."""
    found = summary_of(small_run(tmp_path_factory.mktemp("run")))
    cells = tuple(
        dataclasses.replace(
            one,
            marks=MARKS if (one.driver, one.metric) == ("bwrap", "response_time_ns") else (),
        )
        for one in found.cells
    )
    return dataclasses.replace(found, cells=cells)


def test_terminal_and_markdown_show_signs_and_say_what_they_mean(summary: RunSummary) -> None:
    """One legend line a sign that stands in a table, and none for others."""
    console = Console(width=200, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(render_text(summary))
    text = captured.get()
    assert "†§ [" in text
    assert f"† generator-bound: {FINDING_CODES['generator-bound']}" in text
    assert f"§ not-stationary: {FINDING_CODES['not-stationary']}" in text
    assert "‡" not in text
    assert "- † **generator-bound** " in to_markdown(summary)
    unmarked = tuple(dataclasses.replace(one, marks=()) for one in summary.cells)
    with console.capture() as captured:
        console.print(render_text(dataclasses.replace(summary, cells=unmarked)))
    assert "†" not in captured.get()


def test_page_explains_signs_in_a_tooltip_and_below_the_tables(summary: RunSummary) -> None:
    """Whoever points at a sign reads why."""
    page = render_page(summary, figures=())
    why = FINDING_CODES["generator-bound"]
    assert f'<abbr class="mark" title="generator-bound: {why}">†</abbr>' in page
    assert f'<p class="legend"><b>†</b> generator-bound: {why}</p>' in page


def test_a_reason_is_short_in_a_table_and_whole_in_its_tooltip(summary: RunSummary) -> None:
    """What a column has room for; whoever points at it reads the rest."""
    assert short_reason("n/a (need >= 9: the values come in clusters)") == "n/a (need >= 9)"
    assert short_reason("n/a (lost)") == "n/a (lost)"
    long = NotAvailable(reason="n/a (need >= 9: they come in clusters)", n=5, n_needed=9)
    missing = dataclasses.replace(cell("response_time_ns"), estimate=long)
    entry = make_entry(missing, summary.metrics["response_time_ns"], show=Show.VALUE)
    assert entry.value == "n/a (need >= 9)"
    assert long.reason in entry.explanation


def test_exports_carry_the_codes(summary: RunSummary, tmp_path: Path) -> None:
    """Programs read codes, not signs."""
    file = tmp_path / "cells.csv"
    file.write_text(to_csv(summary))
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    marked = [row for row in rows if row["marks"]]
    assert {(row["driver"], row["metric"]) for row in marked} == {("bwrap", "response_time_ns")}
    assert {row["marks"] for row in marked} == {"generator-bound not-stationary"}
    stored = [one["marks"] for one in json.loads(to_json(summary))["cells"] if one["marks"]]
    assert stored == [list(MARKS)] * len(marked)
