"""The summary in formats for other programs: JSON, CSV and Markdown, and figures as files."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from seatrial.errors import StoreError
from seatrial.model.codec import encode
from seatrial.model.estimate import Estimate
from seatrial.report.board import (
    RELATION_MEANINGS,
    STATUS_MEANINGS,
    ordering_lines,
    overview_of,
)
from seatrial.report.folding import fold
from seatrial.report.view import SEVERITY_GLYPHS, bench_views, marks_in, trials_told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seatrial.model.summary import Cell, RunSummary
    from seatrial.report.parts import Figure, Spec, Values
    from seatrial.report.view import Entry

CSV_COLUMNS = (
    "run_id",
    "bench",
    "point",
    "driver",
    "driver_version",
    "metric",
    "statistic",
    "unit",
    "point_value",
    "low",
    "high",
    "confidence",
    "n",
    "blocks_count",
    "outliers_count",
    "not_available",
    "ratio",
    "ratio_low",
    "ratio_high",
    "verdict",
    "marks",
    "method",
)  # fmt: skip - one line a topic
MARKDOWN_ESCAPES = {letter: f"\\{letter}" for letter in "\\`*_[]#"} | {
    letter: f"&#{ord(letter)};" for letter in "<>|"
}
FIGURE_WIDTH = 640
WIDE_FIGURE_WIDTH = 900
PNG_SCALE = 2
#: Room of a legend's entry: a letter, and its sign with what is around it.
LETTER_WIDTH = 7.2
LEGEND_SIGN_WIDTH = 34
#: The page's light paper; files are put into documents, which are light.
LIGHT_CONFIG: dict[str, Any] = {
    "background": "#ffffff",
    "font": "DejaVu Sans, Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "#59646f",
        "titleColor": "#59646f",
        "gridColor": "#e2e4e1",
        "domainColor": "#e2e4e1",
        "tickColor": "#e2e4e1",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
    "legend": {"labelFontSize": 12, "symbolSize": 90, "labelColor": "#1b2229"},
    "title": {"anchor": "start", "fontSize": 15, "color": "#1b2229", "offset": 12},
}  # fmt: skip - one line a topic


def to_json(summary: RunSummary) -> str:
    """The whole summary as JSON; numbers without loss."""
    return json.dumps(encode(summary), indent=2, ensure_ascii=False, allow_nan=False)


def to_csv(summary: RunSummary) -> str:
    """One line a cell; empty fields are unknown."""
    versions = {driver.name: driver.version for driver in summary.drivers}
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for cell in summary.cells:
        writer.writerow(_csv_row(summary, cell, versions.get(cell.driver)))
    return buffer.getvalue()


def to_markdown(summary: RunSummary) -> str:
    """Findings and tables, fit for an issue or a README."""
    about = (
        f"Run `{summary.run_id}`, {trials_told(summary)}, "
        f"{summary.blocks} blocks; ratios against {_plain(summary.baseline)}; "
        f"{summary.confidence:.0%} intervals."
    )
    lines = [f"# {_plain(summary.name)}", "", about, "", "## Findings", ""]
    lines += _finding_lines(summary) or ["None."]
    views = bench_views(summary)
    lines += _overview_lines(summary)
    for view in views:
        lines += ["", f"## {view.bench.name}: {_plain(view.bench.question)}"]
        for group in view.groups:
            if group.title:
                lines += ["", f"### {_plain(group.title)}"]
            headings = ["runtime", *(column.heading for column in group.columns)]
            lines += ["", _line(headings), _line(["---", *("---:" for _ in group.columns)])]
            lines += [
                _line([f"**{_plain(row.driver)}** {_plain(row.version)}", *map(_md, row.entries)])
                for row in group.rows
            ]
            lines += [
                _line([f"**{_plain(gap.driver)}** {gap.status}", f"✕ {_plain(gap.reason)}"])
                for gap in group.gaps
            ]
            lines += ["", _plain(group.silence)] if group.silence else []
    lines += _ordering_lines(summary)
    marks = marks_in(views)
    lines += [""] if marks else []
    lines += [f"- {mark.glyph} **{mark.code}** {_plain(mark.meaning)}" for mark in marks]
    return "\n".join(lines) + "\n"


def _finding_lines(summary: RunSummary) -> list[str]:
    """A line each, or one for many of a kind as on a terminal; JSON has every one."""
    lines: list[str] = []
    for one in fold(summary.findings):
        head = f"- {SEVERITY_GLYPHS[one.severity]} {one.severity} **{one.code}**"
        if one.is_told_whole:
            lines += [
                f"{head} {_plain(reason.about)}: {_plain(reason.told)}" for reason in one.reasons
            ]
        else:
            at = f" At {one.places}." if one.places else ""
            lines.append(f"{head} {len(one.members)} times: {_plain(one.meaning + at)}")
    return lines


def write_figures(
    summary: RunSummary, directory: Path, *, figures: Sequence[Figure] | None = None
) -> tuple[Path, ...]:
    """Writes every figure as SVG, PNG and its data as CSV, and gives their paths.

    Raises:
        StoreError: The directory cannot be written.
    """
    from seatrial.report.charts import build_figures  # Altair takes a second to import

    return write_drawn(build_figures(summary) if figures is None else figures, directory)


def write_drawn(figures: Sequence[Figure], directory: Path) -> tuple[Path, ...]:
    """Writes the figures as SVG, PNG and their data as CSV, and gives their paths.

    Raises:
        StoreError: The directory cannot be written.
    """
    import vl_convert

    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            spec = standalone(figure)
            svg, png = directory / f"{figure.name}.svg", directory / f"{figure.name}.png"
            svg.write_text(vl_convert.vegalite_to_svg(spec), "utf-8")
            png.write_bytes(vl_convert.vegalite_to_png(spec, scale=PNG_SCALE))
            table = directory / f"{figure.name}.csv"
            table.write_text(figure_csv(figure), "utf-8")
            written += [svg, png, table]
    except OSError as error:
        raise StoreError(
            f"cannot write figures to {directory}: {error.strerror}",
            hint="give another directory with --figures",
        ) from error
    return tuple(written)


def standalone(figure: Figure) -> Spec:
    """The specification with a size, a title and the light paper."""
    width = WIDE_FIGURE_WIDTH if figure.is_wide else FIGURE_WIDTH
    columns = max(1, int(width / (_longest(figure.spec) * LETTER_WIDTH + LEGEND_SIGN_WIDTH)))
    return {
        **figure.spec,
        "width": width,
        "title": figure.title,
        "padding": 12,
        "config": LIGHT_CONFIG | {"legend": {**LIGHT_CONFIG["legend"], "columns": columns}},
    }


def _longest(part: object) -> int:
    """Letters of the longest name in the legends."""
    if isinstance(part, list):
        return max((_longest(one) for one in part), default=1)
    if not isinstance(part, dict) or part.get("legend", 1) is None:
        return 1
    domain = part.get("domain")
    names = [one for one in domain if isinstance(one, str)] if isinstance(domain, list) else []
    inner = [_longest(one) for key, one in part.items() if key not in {"data", "datasets"}]
    return max([1, *map(len, names), *inner])


def figure_csv(figure: Figure) -> str:
    """What the figure is drawn from, in the units of its axes; an empty field is unknown."""
    rows = [row for values in _inline(figure.spec, []) for row in values]
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _inline(part: object, found: list[Values]) -> list[Values]:
    """The values of a specification and its layers, each set of them once."""
    if isinstance(part, list):
        for one in part:
            _inline(one, found)
    if not isinstance(part, dict):
        return found
    data = part.get("data")
    sets = [*part.get("datasets", {}).values(), data.get("values") if data else None]
    found += [values for values in sets if values and values not in found]
    for name, one in part.items():
        if name not in {"data", "datasets"}:
            _inline(one, found)
    return found


def _csv_row(
    summary: RunSummary, cell: Cell, version: str | None
) -> Mapping[str, str | int | float | None]:
    row: dict[str, str | int | float | None] = {
        "run_id": summary.run_id,
        "bench": cell.bench,
        "point": cell.point.key,
        "driver": cell.driver,
        "driver_version": version,
        "metric": cell.metric,
        "statistic": cell.statistic.value,
        "unit": summary.metrics[cell.metric].unit,
        "confidence": summary.confidence,
        "n": cell.n,
        "blocks_count": cell.blocks_count,
        "outliers_count": cell.outliers_count,
        "verdict": cell.verdict.value,
        "marks": " ".join(cell.marks),
    }
    if isinstance(cell.estimate, Estimate):
        row |= {
            "point_value": cell.estimate.point,
            "low": cell.estimate.low,
            "high": cell.estimate.high,
            "method": cell.estimate.method,
        }
    else:
        row["not_available"] = cell.estimate.reason
    if isinstance(cell.ratio, Estimate):
        row |= {
            "ratio": cell.ratio.point,
            "ratio_low": cell.ratio.low,
            "ratio_high": cell.ratio.high,
        }
    return row


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md(entry: Entry | None) -> str:
    if entry is None:
        return "-"
    about = f" *{', '.join(entry.qualifiers)}*" if entry.qualifiers else ""
    if not entry.is_available:
        return f"{entry.value.replace('>=', '≥')}{entry.signs}{about}"
    ratio = f" {entry.glyph} {entry.ratio} {entry.verdict_word}" if entry.ratio else ""
    return f"{entry.value}{entry.signs} {entry.interval}{about}{ratio}"


def _overview_lines(summary: RunSummary) -> list[str]:
    overview = overview_of(summary)
    if overview is None:
        return []
    lines = ["", f"## Everything, times {_plain(summary.baseline)}", ""]
    lines += [_line(["number", *map(_plain, overview.drivers)])]
    lines += [_line(["---", *("---:" for _ in overview.drivers)])]
    for row in overview.rows:
        places = (
            "-"
            if place is None
            else f"{place.value}{place.signs} {place.glyph} {place.ratio}".rstrip()
            for place in row.places
        )
        lines.append(_line([_plain(row.heading), *(" ".join(one.split()) for one in places)]))
    return lines


def _ordering_lines(summary: RunSummary) -> list[str]:
    """Orders as a list; their signs would be markup."""
    lines = [f"- `{line}`" for line in ordering_lines(summary)]
    if not lines:
        return []
    legend = [f"- `{sign}` {meaning}" for sign, meaning in RELATION_MEANINGS.items()]
    statuses = [f"- **{_plain(word)}** {meaning}" for word, meaning in STATUS_MEANINGS.items()]
    return ["", "### In order, the worst first", "", *lines, "", *legend, "", *statuses]


def _plain(text: str) -> str:
    """Text that Markdown and HTML take literally."""
    escaped = "".join(MARKDOWN_ESCAPES.get(letter, letter) for letter in text)
    return escaped.replace("\n", " ")
