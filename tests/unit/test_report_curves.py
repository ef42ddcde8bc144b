"""Curves follow the axes that a run has; gaps are told and never zeros; other runs are thin."""

from __future__ import annotations

import csv
import dataclasses
import io
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import vl_convert
from rich.console import Console

from seatrial.analysis.references import references_of
from seatrial.importers.rund.compat import start_figures
from seatrial.importers.rund.read import read_rund
from seatrial.importers.rund.store import store_data
from seatrial.model.estimate import Estimate
from seatrial.model.plan import Point
from seatrial.model.summary import Gap, Statistic
from seatrial.report.axis_chart import AxisChart, Line, Mark, draw
from seatrial.report.board import overview_of
from seatrial.report.charts import build_figures
from seatrial.report.export import figure_csv, to_markdown
from seatrial.report.page import SNIPPET, render_page
from seatrial.report.palette import inks_of, inks_of_steps
from seatrial.report.text import render_text
from seatrial.store.run_store import RunStore
from tests.support.rund import FIXTURE, time_tree
from tests.support.runs import BLOCKS, small_experiment, small_run, summary_of
from tests.support.synthetic import Script, make_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from seatrial.model.summary import RunSummary
    from seatrial.report.parts import Figure

REASON = "no room: 8 of runsc need 9.00 GiB, and 3.00 GiB are free"
CHART = AxisChart(
    name="n",
    bench="start",
    title="T",
    caption="C.",
    note="",
    axis="concurrency",
    unit="ns",
    is_log=True,
    is_small=False,
)


@pytest.fixture(autouse=True, scope="module")
def _javascript() -> None:
    """Starts the runtime that draws figures; it keeps threads and descriptors for good."""
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": [{}]}})
    vl_convert.javascript_bundle(SNIPPET)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A small scripted run, analysed."""
    return summary_of(small_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def rund(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A few cells of RunD's raw data as a run."""
    (data,) = read_rund(FIXTURE)
    return summary_of(store_data(data, tmp_path_factory.mktemp("rund"), source="fixture"))


def _figure(summary: RunSummary, name: str) -> Figure:
    return {one.name: one for one in build_figures(summary)}[name]


def _rows(figure: Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figure_csv(figure))))


def _gapped(summary: RunSummary) -> RunSummary:
    """The run as if runsc had been refused at 8 starts at once."""
    point = Point(bench="start", values={"concurrency": 8})
    gap = Gap(point=point, driver="runsc", status="skipped", reason=REASON)
    cells = tuple(
        cell for cell in summary.cells if (cell.driver, cell.point.key) != ("runsc", point.key)
    )
    return dataclasses.replace(summary, cells=cells, gaps=(gap,))


def test_a_curve_shows_the_numbers_of_the_tables_in_ms(summary: RunSummary) -> None:
    """Point and interval of each mark are those of the cell, on the axis of the run."""
    rows = _rows(_figure(summary, "start-makespan"))
    assert {row["x"] for row in rows} == {"1.0", "8.0"}
    for row in rows:
        point = Point(bench="start", values={"concurrency": int(float(row["x"]))})
        cell = summary.cell(
            point=point,
            driver=row["driver"],
            metric="start_makespan_ns",
            statistic=Statistic.P50,
        )
        assert cell is not None
        assert isinstance(cell.estimate, Estimate)
        wanted = [cell.estimate.point, cell.estimate.low, cell.estimate.high]
        assert [float(row[end]) * 1e6 for end in ("y", "low", "high")] == pytest.approx(wanted)


def test_what_was_refused_is_a_gap_with_its_reason(summary: RunSummary) -> None:
    """In the figure, its caption, the page, the terminal and Markdown; nowhere a zero."""
    gapped = _gapped(summary)
    figure = _figure(gapped, "start-makespan")
    (row,) = (row for row in _rows(figure) if (row["driver"], row["x"]) == ("runsc", "8.0"))
    assert (row["y"], row["reason"]) == ("", REASON)
    assert f"runsc at 8: {REASON}" in figure.caption
    assert "✕" in str(figure.spec)
    assert f"✕ {REASON}" in render_page(gapped)
    console = Console(width=160, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(render_text(gapped))
    assert f"✕ runsc: skipped: {REASON}" in captured.get()
    assert f"| **runsc** skipped | ✕ {REASON} |" in to_markdown(gapped)
    overview = overview_of(gapped)
    assert overview is not None
    places = {row.metric: row.places for row in overview.rows}["start_makespan_ns"]
    assert [None if place is None else place.value for place in places][-1] == "✕ skipped"


def test_the_analysis_finds_points_without_a_good_trial(tmp_path: Path) -> None:
    """A runtime whose trials all failed is a gap at each of its points, with their reason."""
    run = make_run(tmp_path, Script(blocks=BLOCKS, broken_driver="bwrap"), asked=small_experiment())
    summary = summary_of(run)
    assert {gap.driver for gap in summary.gaps} == {"bwrap"}
    with RunStore.open(run) as store:
        points = {point.key for point in store.manifest.plan.points}
    assert {gap.point.key for gap in summary.gaps} == points
    assert {gap.status for gap in summary.gaps} == {"failed"}
    assert all(gap.reason for gap in summary.gaps)


def test_reasons_are_told_once_however_many_marks_they_weigh_on() -> None:
    """Three missing marks of two lines for one reason make one phrase."""
    lines = [
        Line(name="runc", marks=(Mark(x=1, y=1e6), Mark(x=4, reason="r"), Mark(x=8, reason="r"))),
        Line(name="runsc", marks=(Mark(x=1, y=2e6), Mark(x=8, reason="r"))),
    ]
    figure = draw(CHART, lines, inks_of(("runc", "runsc")), frame=lines)
    assert figure.caption.endswith("✕ no number: runc at 4 and 8, runsc at 8: r.")


def test_axes_hold_all_points_whatever_their_intervals_do() -> None:
    """An interval over ten decades does not squeeze the points; neither end leaves the axis."""
    lines = [Line(name="runc", marks=(Mark(x=1, y=1e6, low=1, high=1e15), Mark(x=2, y=3e6)))]
    spec = draw(CHART, lines, inks_of(("runc",)), frame=lines).spec
    scales = [
        layer["encoding"]["y"]["scale"]
        for layer in spec["layer"]
        if "scale" in layer["encoding"]["y"]
    ]
    assert scales
    for scale in scales:
        low, high = scale["domain"]
        assert scale["clamp"]
        assert 0.5 < low < 1
        assert 3 < high < 6


def test_one_runtime_gets_a_line_for_each_value_of_the_other_axis(rund: RunSummary) -> None:
    """As RunD's figures: against the concurrency a line for each background, and the reverse."""
    cells = [cell for cell in rund.cells if cell.bench == "rund-density"]
    known = cells[0].point.values["concurrency"]
    doubled = [
        dataclasses.replace(
            cell, point=Point(bench=cell.bench, values={**cell.point.values, "concurrency": 64})
        )
        for cell in cells
        if cell.point.values["concurrency"] == known
    ]
    both = dataclasses.replace(rund, cells=(*rund.cells, *doubled))
    rows = _rows(_figure(both, "rund-density-makespan-background"))
    assert {row["driver"] for row in rows} == {f"{known} at once", "64 at once"}
    assert {row["x"] for row in rows} == {"100.0", "200.0"}
    rows = _rows(_figure(both, "rund-density-makespan"))
    assert {row["driver"] for row in rows} == {"100 others", "200 others"}


def test_amplification_of_imported_data_is_the_importers(rund: RunSummary) -> None:
    """The mean makespan over that beside the fewest, with an interval."""
    (data,) = read_rund(FIXTURE)
    known = {
        (one.background, one.concurrency): one.amplification_ratio
        for one in start_figures(data)
        if one.background is not None
    }
    cells = [cell for cell in rund.cells if cell.metric == "rund.amplification"]
    assert cells
    for cell in cells:
        assert isinstance(cell.estimate, Estimate)
        values = cell.point.values
        wanted = known[int(values["background"]), int(values["concurrency"])]
        assert cell.estimate.point == pytest.approx(wanted)


def test_other_runs_are_thin_lines_with_a_name(tmp_path: Path, summary: RunSummary) -> None:
    """They carry their own run's name, have no place in legends, and the caption warns."""
    cells: Mapping[int, list[list[int]]] = {
        1: [[40], [41], [42]],
        10: [[50] * 10, [52] * 10, [51] * 10],
    }
    time_tree(tmp_path / "theirs", cells)
    (data,) = read_rund(tmp_path / "theirs")
    theirs = summary_of(store_data(data, tmp_path / "runs", source="test"))
    beside = dataclasses.replace(summary, references=references_of(theirs))
    figure = _figure(beside, "start-makespan")
    names = {row["driver"] for row in _rows(figure)}
    assert f"{theirs.name}: rund" in names
    assert "rund.makespan_mean (mean over rounds" in figure.caption
    assert "Compare the shape" in figure.caption
    colours = [layer["encoding"].get("color", {}) for layer in figure.spec["layer"]]
    domains = [one["scale"]["domain"] for one in colours if "scale" in one]
    assert domains
    assert all("rund" not in " ".join(domain) for domain in domains)
    assert f"<dd>{theirs.name}: rund</dd>" in render_page(beside)
    assert "Compare the shape" not in _figure(summary, "start-makespan").caption


def test_parts_of_a_start_make_up_the_whole(summary: RunSummary) -> None:
    """The shares of each runtime join without a hole, from nothing to all of it."""
    rows = [row for row in _rows(_figure(summary, "start-phases-1")) if row["part"]]
    assert rows
    for driver in {row["driver"] for row in rows}:
        own = [row for row in rows if row["driver"] == driver]
        assert float(own[0]["from"]) == 0
        assert float(own[-1]["to"]) == pytest.approx(1)
        for before, after in pairwise(own):
            assert before["to"] == after["from"]


def test_nought_has_no_place_on_a_logarithmic_axis() -> None:
    """A number that is not above nought is told with its value, not drawn at the frame."""
    lines = [Line(name="runc", marks=(Mark(x=1, y=1e6), Mark(x=2, y=-5.0, text="-5 ns")))]
    figure = draw(CHART, lines, inks_of(("runc",)), frame=lines)
    assert [row["y"] for row in _rows(figure)] == ["1.0", ""]
    assert "runc at 2: -5 ns, which a logarithmic axis cannot show" in figure.caption


def test_cpu_time_that_ticks_missed_is_not_lost(summary: RunSummary) -> None:
    """Where user and system are nought by the ticks the exact time stands in one piece."""
    cells = tuple(
        dataclasses.replace(
            cell, estimate=dataclasses.replace(cell.estimate, point=0.0, low=0.0, high=0.0)
        )
        if cell.metric in {"start_cpu_user_ns", "start_cpu_system_ns"}
        and isinstance(cell.estimate, Estimate)
        else cell
        for cell in summary.cells
    )
    rows = _rows(_figure(dataclasses.replace(summary, cells=cells), "start-cpu-parts-1"))
    assert {row["part"] for row in rows if row["part"]} == {"not split"}


def test_an_emulated_processor_is_told_wherever_numbers_stand(summary: RunSummary) -> None:
    """Under every curve and over the column of the overview."""
    drivers = tuple(
        dataclasses.replace(driver, flags={"accelerator": "tcg"})
        if driver.name == "bwrap"
        else driver
        for driver in summary.drivers
    )
    emulated = dataclasses.replace(summary, drivers=drivers)
    assert (
        "bwrap runs on an emulated processor (TCG)" in _figure(emulated, "start-makespan").caption
    )
    overview = overview_of(emulated)
    assert overview is not None
    assert dict(zip(overview.drivers, overview.notes, strict=True))["bwrap"] == "TCG, emulated"
    assert "emulated" not in _figure(summary, "start-makespan").caption


def test_steps_grow_from_one_end_to_the_other() -> None:
    """Each step of an axis has its own colour and keeps its place between the ends."""
    inks = list(inks_of_steps(tuple("abcd")).values())
    assert len({ink.colour for ink in inks}) == 4
    assert inks[0].colour != inks[-1].colour
    assert len(inks_of_steps(("alone",))) == 1
