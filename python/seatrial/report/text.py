"""The run in a terminal: findings first, then one table a bench and point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group as Stack
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from seatrial.model.finding import Severity
from seatrial.model.summary import Verdict
from seatrial.report.board import (
    RELATION_MEANINGS,
    STATUS_MEANINGS,
    has_statuses,
    ordering_lines,
    overview_of,
)
from seatrial.report.familiar import FLEET, familiar_tables
from seatrial.report.folding import fold
from seatrial.report.view import (
    GLYPHS,
    SEVERITY_GLYPHS,
    bench_views,
    marks_in,
    trials_told,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from seatrial.model.finding import Finding
    from seatrial.model.summary import RunSummary
    from seatrial.report.board import Overview, Place
    from seatrial.report.view import Entry, Group

SEVERITY_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
VERDICT_STYLES = {Verdict.FASTER: "cyan", Verdict.SLOWER: "yellow", Verdict.LOST: "bold red"}
#: A terminal is read at a glance; the page shows every column, also those without a number.
COLUMNS_MAX = 6
INSIDE = "inside"


def render_text(summary: RunSummary) -> RenderableType:
    """The run as something that Rich can print."""
    parts: list[RenderableType] = [_head(summary), "", _findings(summary.findings)]
    views = bench_views(summary)
    overview = overview_of(summary)
    if overview is not None:
        parts += ["", _overview(overview)]
    for view in views:
        parts += ["", Text(f"{view.bench.name}: {view.bench.question}", style="bold")]
        if view.bench.name == FLEET:
            parts += [Padding(table, (0, 0, 1, 0)) for table in familiar_tables(summary)]
        for group in view.groups:
            parts += [*([_table(group)] if group.rows else [Text(group.title, style="italic")])]
            parts += [*_gaps(group), *_silence(group), ""]
        if view.bench.name == INSIDE:
            parts += _orderings(summary)
    parts.append(
        Text(
            f"{GLYPHS[Verdict.FASTER]} better  {GLYPHS[Verdict.SLOWER]} worse  "
            f"{GLYPHS[Verdict.INDISTINGUISHABLE]} indistinguishable from {summary.baseline}  "
            f"{GLYPHS[Verdict.UNRESOLVED]} unresolved: blocks too few (five are good) or unlike; "
            f"in brackets {summary.confidence:.0%} intervals",
            style="dim",
        )
    )
    parts += [
        Text(f"{mark.glyph} {mark.code}: {mark.meaning}", style="yellow")
        for mark in marks_in(views)
    ]
    if has_statuses(summary):
        legend = (f"{word}: {meaning}" for word, meaning in STATUS_MEANINGS.items())
        parts += [Text(line, style="dim") for line in legend]
    return Stack(*parts)


def _head(summary: RunSummary) -> Text:
    return Text.assemble(
        (summary.name, "bold"),
        f"  run {summary.run_id}, {trials_told(summary)}, "
        f"{summary.blocks} blocks, ratios against {summary.baseline}",
    )


def _findings(findings: tuple[Finding, ...]) -> RenderableType:
    if not findings:
        return Text("✓ no findings")
    grid = Table.grid(padding=(0, 2, 0, 0))
    for one in fold(findings):
        mark = Text(
            f"{SEVERITY_GLYPHS[one.severity]} {one.severity}", style=SEVERITY_STYLES[one.severity]
        )
        code = Text(one.code, style="bold")
        if one.is_told_whole:
            for reason in one.reasons:
                grid.add_row(mark, code, Text(reason.about), Text(reason.told))
        else:
            message = Text(f"{one.meaning} At {one.places}." if one.places else one.meaning)
            message.append(" The page and --json have each of them.", style="dim")
            grid.add_row(mark, code, Text(f"{len(one.members)} times"), message)
    return grid


def _overview(overview: Overview) -> Table:
    table = Table(
        title="Everything, times the baseline",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for name, note in zip(overview.drivers, overview.notes, strict=True):
        heading = f"{name}\n{note}" if note else name
        table.add_column(escape(heading), justify="right", header_style="bold")
    for row in overview.rows:
        table.add_row(row.heading, *map(_overview_place, row.places))
    return table


def _overview_place(place: Place | None) -> Text:
    if place is None:
        return Text("-", style="dim")
    text = Text(place.value)
    text.append(place.signs, style="bold yellow")
    if place.ratio:
        style = VERDICT_STYLES.get(place.verdict, "dim")
        text.append(f"\n{place.glyph} {place.ratio}".replace("\n ", "\n"), style=style)
    return text


def _orderings(summary: RunSummary) -> list[RenderableType]:
    """Who needs more and who gets less, the worst first."""
    lines = ordering_lines(summary, only_main=True)
    if not lines:
        return []
    return [
        Text("In order, the worst first", style="bold"),
        *(Text(line) for line in lines),
        *(Text(f"{sign} {meaning}", style="dim") for sign, meaning in RELATION_MEANINGS.items()),
    ]


def _table(group: Group) -> Table:
    table = Table(
        title=escape(group.title) or None,
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("runtime", header_style="dim", no_wrap=True)
    shown = [
        number
        for number in range(len(group.columns))
        if any(entry and entry.has_value for entry in (row.entries[number] for row in group.rows))
    ][:COLUMNS_MAX]
    for number in shown:
        heading = escape(group.columns[number].heading)
        table.add_column(heading, justify="right", header_style="dim")
    for row in group.rows:
        name = Text.assemble((row.driver, "bold"), "\n", (row.version, "dim"))
        cells = [_cell(row.entries[number]) for number in shown]
        table.add_row(name, *cells, style="dim" if row.is_floor else None)
    return table


def _gaps(group: Group) -> list[RenderableType]:
    return [Text(f"✕ {gap.driver}: {gap.status}: {gap.reason}", style="dim") for gap in group.gaps]


def _silence(group: Group) -> list[RenderableType]:
    return [Text(group.silence, style="dim")] if group.silence else []


def _cell(entry: Entry | None) -> Text:
    if entry is None:
        return Text("-", style="dim")
    if not entry.is_available and not entry.qualifiers:
        return Text(entry.value, style="" if entry.has_value else "dim")
    text = Text(f"{entry.value}")
    text.append(entry.signs, style="bold yellow")
    text.append(f" {entry.interval}" if entry.interval else "")
    if entry.qualifiers:
        text.append("\n" + ", ".join(entry.qualifiers), style="dim")
    if entry.ratio:
        style = VERDICT_STYLES.get(entry.verdict, "dim")
        text.append(f"\n{entry.glyph} {entry.ratio} {entry.verdict_word}", style=style)
    elif entry.verdict is Verdict.BASELINE:
        text.append("\nbaseline", style="dim")
    return text
