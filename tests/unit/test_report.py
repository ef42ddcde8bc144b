"""The report shows the summary's numbers, escapes every text and computes nothing."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import vl_convert
from rich.console import Console

from seatrial.model.estimate import Estimate
from seatrial.model.metric import Direction, Metric
from seatrial.model.summary import FLOOR, Statistic, Verdict
from seatrial.report.charts import build_figures
from seatrial.report.export import to_csv, to_json, to_markdown, write_figures
from seatrial.report.page import render_page
from seatrial.report.palette import INKS, SPARE, STEPS, inks_of
from seatrial.report.parts import fitting_unit, log_ticks
from seatrial.report.shares import PHASES
from seatrial.report.text import render_text
from seatrial.report.view import bench_views, format_interval, format_number, verdict_word
from tests.support.runs import small_run, summary_of
from tests.support.synthetic import COSTS

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.scalar import Scalar
    from seatrial.model.summary import RunSummary


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A small scripted run, analysed."""
    return summary_of(small_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(autouse=True, scope="module")
def _javascript() -> None:
    """Starts the runtime that draws figures; it keeps threads and descriptors for good."""
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": [{}]}})
    vl_convert.vegalite_to_png({"mark": "point", "data": {"values": [{}]}})


def _interval(point: float, low: float, high: float) -> Estimate:
    return Estimate(point=point, low=low, high=high, confidence=0.95, n=9, method="test", unit="ns")


@pytest.mark.parametrize(
    ("point", "low", "high", "shown"),
    [
        (13.1e6, 12.8e6, 13.5e6, "[12.8, 13.5]"),
        (1.02e6, 0.98e6, 1.1e6, "[980 µs, 1.10 ms]"),
        (500.0, 0.0, 600.0, "[0, 600]"),
        (70.2e6, 399.0, 1.2e13, "[< 702 µs, > 7.02 s]"),
        (5e6, 1.2e3, 8e6, "[< 50.0 µs, 8.00 ms]"),
    ],
)
def test_interval_shares_the_unit_where_it_can(
    point: float, low: float, high: float, shown: str
) -> None:
    """The unit is repeated only where an end needs another one."""
    assert format_interval(_interval(point, low, high), "ns") == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "0 %"), (1.0, "100 %"), (0.9964, "99.6 %"), (18.912, "1891 %")]
)
def test_shares_are_per_cent_without_exponents(share: float, shown: str) -> None:
    """Three digits, and all of them where there are more before the point."""
    assert format_number(share, "ratio") == shown


@pytest.mark.parametrize(
    ("verdict", "unit", "direction", "word"),
    [
        (Verdict.FASTER, "ns", Direction.LOWER, "faster"),
        (Verdict.SLOWER, "bytes", Direction.LOWER, "more"),
        (Verdict.FASTER, "bytes", Direction.LOWER, "less"),
        (Verdict.SLOWER, "ratio", Direction.HIGHER, "less"),
        (Verdict.INDISTINGUISHABLE, "bytes", Direction.LOWER, "indistinguishable"),
        (Verdict.UNRESOLVED, "bytes", Direction.LOWER, "unresolved"),
        (Verdict.NOT_JUDGED, "ns", Direction.NONE, ""),
    ],
)
def test_verdicts_speak_the_language_of_their_metric(
    verdict: Verdict, unit: str, direction: Direction, word: str
) -> None:
    """Memory is not slower: there is more of it."""
    metric = Metric(name=f"thing_{unit}", unit=unit, direction=direction, meaning="m", method="f")
    assert verdict_word(verdict, metric) == word


def test_terminal_tells_findings_versions_and_verdicts_without_colour(
    summary: RunSummary,
) -> None:
    """A pipe without colour carries everything: sign and word, and the version in every table."""
    console = Console(width=160, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(render_text(summary))
    text = captured.get()
    assert text.index("unsupported") < text.index("start: How fast")
    assert "▼" in text
    assert "slower" in text
    assert "baseline" in text
    assert text.count(COSTS["runsc"].version) >= 4
    assert "floor" in text
    assert "\x1b" not in text


def test_json_carries_numbers_without_loss(summary: RunSummary) -> None:
    """What is read back is what was estimated."""
    read = json.loads(to_json(summary))
    assert len(read["cells"]) == len(summary.cells)
    for stored, cell in zip(read["cells"], summary.cells, strict=True):
        if isinstance(cell.estimate, Estimate):
            assert stored["estimate"]["point"] == cell.estimate.point


def test_csv_has_a_line_a_cell_and_no_number_where_there_is_none(summary: RunSummary) -> None:
    """Unknown is empty with a reason beside it, never zero."""
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    assert len(rows) == len(summary.cells)
    missing = [row for row in rows if row["not_available"]]
    assert missing
    assert all(row["point_value"] == "" for row in missing)


def test_markdown_escapes_what_would_be_markup(summary: RunSummary) -> None:
    """Texts of the run cannot become markup."""
    text = to_markdown(summary)
    assert "<b>" not in text
    assert "&#60;b&#62;not&#60;/b&#62;" in text
    assert "| **bwrap** bubblewrap 0.8.0 |" in text


def test_a_column_without_any_number_is_a_line_with_its_reason(summary: RunSummary) -> None:
    """Room is for numbers, but nobody has to guess why a percentile is not there."""
    groups = [group for view in bench_views(summary) for group in view.groups]
    for group in groups:
        for number, _ in enumerate(group.columns):
            entries = [row.entries[number] for row in group.rows if not row.is_floor]
            assert any(entry and (entry.has_value or entry.qualifiers) for entry in entries)
    silent = [line for group in groups for line in group.silent]
    assert any(line.endswith("n/a (need >= 368)") for line in silent)
    for text in (render_page(summary), to_markdown(summary).replace("&#62;", ">")):
        assert all(line in text.replace("&gt;", ">") for line in silent)


def test_page_escapes_texts_and_holds_everything(summary: RunSummary) -> None:
    """No text becomes an element, no address is loaded, the request is there as written."""
    page = render_page(summary)
    assert "<b>not</b>" not in page
    assert "memory limits &lt;b&gt;not&lt;/b&gt; applied: cgroup v1 &amp; hybrid" in page
    assert "&lt;every&gt; number is known &amp; &#34;quoted&#34;" in page
    head, _, body = page.partition('<script type="application/json" id="specs">')
    specs, _, _ = body.partition("</script>")
    assert "<" not in specs
    assert 'src="' not in head
    assert "<link" not in head.replace('<link rel="icon" href="data:,">', "")
    figures = {figure.name: figure.spec for figure in build_figures(summary)}
    assert json.loads(specs) == figures


def test_every_figure_answers_its_question(summary: RunSummary) -> None:
    """Each bench has its figures, and the run has one of all ratios."""
    names = [figure.name for figure in build_figures(summary)]
    assert len(names) == len(set(names))
    wanted = {"glance", "start-makespan", "density-memory", "load-latency-1", "inside-syscall-ns"}
    assert wanted <= set(names)
    assert {"start-latency-1", "start-latency-2"} <= set(names)


def test_figures_are_written_as_svg_and_png_and_csv(summary: RunSummary, tmp_path: Path) -> None:
    """Pictures that anybody can read, and the numbers that they show."""
    figures = [one for one in build_figures(summary) if one.name == "start-makespan"]
    svg, png, table = write_figures(summary, tmp_path / "figures", figures=figures)
    assert svg.read_text().startswith("<svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert {(row["driver"], row["x"]) for row in rows} >= {("runsc", "8.0"), ("process", "1.0")}
    assert all(float(row["low"]) <= float(row["y"]) <= float(row["high"]) for row in rows)


def test_colours_are_fixed_and_distinct() -> None:
    """A driver looks the same in every run; strangers get colours nobody else has."""
    alone = inks_of(("runsc",))
    together = inks_of(("process", "runsc", "zz-custom", FLOOR))
    assert alone["runsc"] == together["runsc"]
    colours = [ink.colour for ink in (*INKS.values(), *SPARE)]
    assert len(colours) == len(set(colours))


@pytest.mark.parametrize(
    "colour", sorted(ink.colour for ink in (*INKS.values(), *SPARE)) + list(STEPS)
)
def test_colours_stand_out_on_both_papers(colour: str) -> None:
    """At least 2.5 to 1 against the light and the dark paper (shape and legend help as well)."""
    for paper in ("#fcfcfa", "#11161b"):
        assert _contrast(colour, paper) >= 2.5


def test_every_limit_of_memory_has_a_figure_and_a_row_of_its_own(summary: RunSummary) -> None:
    """Lines of one driver with several limits would lie on each other under one name."""

    def limited(name: str) -> dict[str, Scalar]:
        return {"memory_bytes": {"a": 1 << 27, "b": 1 << 31}[name]}

    trends = [one for one in summary.trends if one.metric == "memory_pss_total_bytes"]
    slopes = [one for one in summary.cells if one.statistic is Statistic.SLOPE]
    assert trends
    assert slopes
    both = replace(
        summary,
        trends=tuple(replace(one, held=limited(name)) for name in "ab" for one in trends),
        cells=tuple(
            replace(one, point=replace(one.point, values=limited(name)))
            for name in "ab"
            for one in slopes
        ),
    )
    found = {figure.name: figure for figure in build_figures(both)}
    assert found["density-memory-1"].title == "Memory against count, limit 128 MiB"
    assert found["density-memory-2"].title == "Memory against count, limit 2.00 GiB"
    assert "density-memory" not in found
    text = json.dumps(found["glance"].spec)
    assert "density: one more, PSS, limit 128 MiB" in text
    assert "density: one more, PSS, limit 2.00 GiB" in text


def test_steps_of_a_start_have_colours_of_their_own() -> None:
    """As many as a pod has parts."""
    assert len(set(STEPS)) >= len(PHASES.parts)


def test_an_axis_has_the_unit_of_its_middle() -> None:
    """Half a microsecond to two milliseconds are microseconds; other units stay as they are."""
    assert fitting_unit("ns", [500, 2e6]) == (1_000, "µs")
    assert fitting_unit("ns", [0, 300, 400]) == (1, "ns")
    assert fitting_unit("ns", [2e9]) == (1e9, "s")
    assert fitting_unit("bytes/s", [3 << 30, 20 << 30]) == (1 << 30, "GiB/s")
    assert fitting_unit("bytes/s", [10]) == (1 << 10, "KiB/s")
    assert fitting_unit("bytes/s", []) == (1 << 20, "MiB/s")
    assert fitting_unit("1/s", [5]) == (1, "1/s")


def test_log_ticks_cover_the_values() -> None:
    """Few round numbers; narrower ranges get more of them."""
    assert log_ticks([1, 100]) == pytest.approx([1, 2, 5, 10, 20, 50, 100])
    assert log_ticks([0.5, 500]) == pytest.approx([1, 3, 10, 30, 100, 300])
    assert log_ticks([0.0]) == []
    assert log_ticks([110, 260]) == pytest.approx([100, 150, 200, 300])


def _contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours as WCAG 2 defines it."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
