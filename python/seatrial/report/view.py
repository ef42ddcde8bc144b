"""Tables as a reader sees them, made once for terminal, page and Markdown."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.model.estimate import Estimate
from seatrial.model.experiment import Layout
from seatrial.model.finding import FINDING_CODES, Severity
from seatrial.model.metric import Direction
from seatrial.model.plan import Point
from seatrial.model.summary import FLOOR, BenchSummary, Cell, Gap, Verdict
from seatrial.model.trial import TrialStatus
from seatrial.report.layout import Column, Show, columns_of
from seatrial.units import format_bytes, format_ratio, format_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.model.estimate import NotAvailable
    from seatrial.model.finding import Finding
    from seatrial.model.metric import Metric
    from seatrial.model.summary import DriverSummary, RunSummary, Score, Statistic

#: Verdicts are told by sign and word; colour only repeats them.
GLYPHS = {
    Verdict.FASTER: "▲",
    Verdict.SLOWER: "▼",
    Verdict.INDISTINGUISHABLE: "≈",
    Verdict.UNRESOLVED: "?",
    Verdict.BASELINE: "·",
    Verdict.LOST: "✖",
    Verdict.NOT_JUDGED: "",
}
SEVERITY_GLYPHS = {Severity.ERROR: "✖", Severity.WARNING: "▲", Severity.INFO: "●"}
#: Signs of the findings that weigh on a number, beside the number; a legend says what they mean.
MARK_GLYPHS = {
    "generator-bound": "†",
    "saturated": "‡",
    "not-stationary": "§",
    "cached": " (C)",
    "exceeds-host": " (E)",
    "outliers": " (O)",
    "device-unknown": " (?)",
}
#: The sign of any other.
OTHER_MARK = "¶"
#: Of what is fitted through all counts of the bench density.
LINE_TITLE = "Line over all counts"
#: The multiplication sign, by name, since it looks like a letter.
TIMES = "\N{MULTIPLICATION SIGN}"
#: An interval that reaches further than this from its point, in times, says that nothing is known.
ENDS_FACTOR = 100
PERCENT_WHOLE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A finding that weighs on a number, as a sign beside it."""

    glyph: str
    code: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What stands in one place of a table."""

    cell: Cell
    value: str
    interval: str
    ratio: str
    """Such as 32.1 times; empty where nothing is compared."""
    ratio_interval: str
    verdict: Verdict
    verdict_word: str
    explanation: str
    """How the number was made, for a tooltip."""
    qualifiers: tuple[str, ...] = ()
    """Status, first touch and share of the device of work inside a sandbox."""

    @property
    def is_available(self) -> bool:
        """Whether there is a number."""
        return isinstance(self.cell.estimate, Estimate)

    @property
    def has_value(self) -> bool:
        """Whether there is a number, though it be one without an interval."""
        return self.is_available or self.cell.estimate.point is not None

    @property
    def glyph(self) -> str:
        """The sign of the verdict."""
        return GLYPHS[self.verdict]

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What weighs on the number."""
        return tuple(mark_of(code) for code in self.cell.marks)

    @property
    def signs(self) -> str:
        """The signs of those; empty for a number that nothing weighs on."""
        return "".join(mark.glyph for mark in self.marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One driver at one point."""

    driver: str
    version: str
    is_baseline: bool
    entries: tuple[Entry | None, ...]

    @property
    def is_floor(self) -> bool:
        """Whether it is the launcher's floor and no driver."""
        return self.driver == FLOOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows of one point, under columns that have something to show there."""

    title: str
    point: Point
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...] = ()
    """The runtimes that have no row, and why."""
    silent: tuple[str, ...] = ()
    """The columns in which no runtime has a number, each with the reason; they are not above."""

    @property
    def silence(self) -> str:
        """A sentence about those columns; empty where there is none."""
        return f"Without a number here: {'; '.join(self.silent)}." if self.silent else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchView:
    """The tables of one bench."""

    bench: BenchSummary
    groups: tuple[Group, ...]


def trials_told(summary: RunSummary) -> str:
    """How many trials have finished, and how, unless all went well."""
    told = f"{summary.trials_finished} of {summary.trials_planned} trials finished"
    if set(summary.trials_by_status) <= {TrialStatus.OK}:
        return told
    ends = (f"{count} {status}" for status, count in summary.trials_by_status.items())
    return f"{told} ({', '.join(ends)})"


def bench_views(summary: RunSummary) -> tuple[BenchView, ...]:
    """The tables of every bench that measured something."""
    views: list[BenchView] = []
    for bench in summary.benches:
        cells = [cell for cell in summary.cells if cell.bench == bench.name]
        missing = [gap.point for gap in summary.gaps if gap.point.bench == bench.name]
        points = {point.key: point for point in (*(cell.point for cell in cells), *missing)}
        order = {point.key: number for number, point in enumerate(bench.points)}
        ranked = sorted(points.values(), key=lambda point: order.get(point.key, len(order)))
        groups = [_group(summary, bench, point, cells) for point in ranked]
        shown = tuple(group for group in groups if group.columns or group.gaps)
        if shown:
            views.append(BenchView(bench=bench, groups=shown))
    return tuple(views)


def verdict_word(verdict: Verdict, metric: Metric) -> str:
    """The verdict in the words of the metric: memory and CPU time are not faster, but less."""
    if verdict is Verdict.NOT_JUDGED:
        return ""
    if verdict not in {Verdict.FASTER, Verdict.SLOWER}:
        return verdict.value
    if metric.unit in {"bytes", "ratio", "count"} or "_cpu_" in metric.name:
        is_less = (verdict is Verdict.FASTER) == (metric.direction is Direction.LOWER)
        return "less" if is_less else "more"
    return verdict.value


def format_number(value: float, unit: str) -> str:
    """A value with the unit that fits; shares as per cent."""
    if unit != "ratio":
        return format_value(value, unit)
    percent = value * 100
    is_whole = percent in {0, 100} or abs(percent) >= PERCENT_WHOLE
    return f"{percent:.0f} %" if is_whole else f"{percent:.3g} %"


def format_interval(estimate: Estimate, unit: str) -> str:
    """The interval in the unit of the point where that is short: ``[12.8, 13.5]``.

    Ends that lie more than `ENDS_FACTOR` times away from the point say only that: ``[< 0.1, 14]``.
    """
    beyond, (low, high) = _ends(estimate)
    texts = [format_number(value, unit).partition(" ") for value in (low, high)]
    suffix = format_number(estimate.point, unit).partition(" ")[2]
    is_short = suffix and all(end == suffix or number == "0" for number, _, end in texts)
    shown = [number if is_short else f"{number}{gap}{end}" for number, gap, end in texts]
    return f"[{beyond[0]}{shown[0]}, {beyond[1]}{shown[1]}]"


def format_ratio_interval(ratio: Estimate) -> str:
    """The interval of a ratio: ``[1.8, 2.3]``."""
    beyond, (low, high) = _ends(ratio)
    return f"[{beyond[0]}{format_ratio(low)}, {beyond[1]}{format_ratio(high)}]"


def _ends(estimate: Estimate) -> tuple[tuple[str, str], tuple[float, float]]:
    """How the ends are to be read, ``("", "> ")``, and the values to print."""
    point, low, high = estimate.point, estimate.low, estimate.high
    if point <= 0:
        return ("", ""), (low, high)
    least, largest = point / ENDS_FACTOR, point * ENDS_FACTOR
    signs = ("< " if 0 < low < least else "", "> " if high > largest else "")
    return signs, (least if signs[0] else low, largest if signs[1] else high)


def format_estimate(estimate: Estimate | NotAvailable, unit: str) -> str:
    """Value with interval in one line, or why there is none."""
    if not isinstance(estimate, Estimate):
        return estimate.reason
    return f"{format_number(estimate.point, unit)} {format_interval(estimate, unit)}"


def format_factor(ratio: float) -> str:
    """A ratio with three digits and the multiplication sign."""
    return format_ratio(ratio) + TIMES


def point_title(point: Point) -> str:
    """The axes of a point in words; empty for the only point of a bench."""
    if not point.values:
        return LINE_TITLE if point.bench == "density" else ""
    if "layout" in point.values:
        return ", ".join(_fleet_words(point))
    if point.bench == "inside":
        return " ".join(str(point.values[name]) for name in sorted(point.values))
    named = [
        f"{name.removesuffix('_rps').removesuffix('_bytes')} {_axis_value(name, value)}"
        for name, value in sorted(point.values.items(), key=lambda item: item[0] != "mode")
    ]
    if point.bench == "density" and set(point.values) == {"memory_bytes"}:
        named.insert(0, LINE_TITLE)
    return ", ".join(
        "as many as fit" if text == "fill bound" else text.removeprefix("mode ") for text in named
    )


def _fleet_words(point: Point) -> Iterable[str]:
    values = point.values
    count = values["count"]
    if count == 1:
        yield "1 sandbox"
    elif values["layout"] == Layout.SERVERS:
        yield f"{count} servers in 1 sandbox"
    else:
        yield f"{count} sandboxes"
    yield f"{values['demand']}"
    if "rate_rps" in values:
        yield _axis_value("rate_rps", values["rate_rps"])


def qualifiers(score: Score | None, unit: str, *, has_no_interval: bool = False) -> tuple[str, ...]:
    """What stands below a number of work inside: its status, first touch, share of the device."""
    if score is None:
        return ()
    words = [score.status.value] if score.value is not None else []
    if has_no_interval and words:
        words.insert(0, "no interval")
    if score.first:
        middle = sorted(score.first)[len(score.first) // 2]
        words.append(f"first {format_number(middle, unit)}")
    if score.device_ratio is not None and score.value is not None:
        words.append(f"device {score.device_ratio:.0%}")
    if score.route is not None and score.value is not None:
        words.append(score.route)
    return tuple(words)


def short_reason(reason: str) -> str:
    """Why there is no number, without what explains it: ``n/a (need >= 300)``."""
    head, colon, _ = reason.partition(": ")
    return f"{head})" if colon and "(" in head else reason


def mark_of(code: str) -> Mark:
    """The sign of a finding beside a number, and what it means."""
    return Mark(
        glyph=MARK_GLYPHS.get(code, OTHER_MARK), code=code, meaning=FINDING_CODES.get(code, "")
    )


def marks_in(views: Iterable[BenchView]) -> tuple[Mark, ...]:
    """The marks that stand in these tables, each once, for their legend."""
    codes = {
        code
        for view in views
        for group in view.groups
        for row in group.rows
        for entry in row.entries
        if entry is not None
        for code in entry.cell.marks
    }
    ranked = sorted(codes, key=lambda code: ([*MARK_GLYPHS, code].index(code), code))
    return tuple(mark_of(code) for code in ranked)


def severity_counts(findings: Iterable[Finding]) -> dict[Severity, int]:
    """How many findings there are of each severity, the worst first."""
    counts = dict.fromkeys(reversed(Severity), 0)
    for finding in findings:
        counts[finding.severity] += 1
    return counts


def _axis_value(name: str, value: object) -> str:
    if name.endswith("_bytes") and isinstance(value, int | float):
        return format_bytes(value)
    if name.endswith("_rps") and isinstance(value, int | float):
        return f"{value:g}/s"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _group(summary: RunSummary, bench: BenchSummary, point: Point, cells: Iterable[Cell]) -> Group:
    found = {
        (cell.driver, cell.metric, cell.statistic): cell
        for cell in cells
        if cell.point.key == point.key
    }
    names = [driver.name for driver in summary.drivers] + [FLOOR]
    versions = {driver.name: _version(driver) for driver in summary.drivers}
    columns = tuple(
        column
        for column in columns_of(bench)
        if column.fits(point)
        and any(
            (name, column.metric, statistic) in found
            for name in names
            for statistic in column.statistics
        )
    )
    rows: list[Row] = []
    for name in names:
        entries = tuple(_entry(summary, column, found, name) for column in columns)
        if any(entry is not None for entry in entries):
            rows.append(
                Row(
                    driver=name,
                    version=versions.get(name, "null runtime"),
                    is_baseline=name == summary.baseline,
                    entries=entries,
                )
            )
    named = tuple(
        _named(column, [row.entries[n] for row in rows]) for n, column in enumerate(columns)
    )
    told = [row.entries for row in rows if not row.is_floor]
    spoken = [n for n in range(len(columns)) if _has_something([one[n] for one in told])]
    spoken = spoken or list(range(len(columns)))
    return Group(
        title=point_title(point),
        point=point,
        columns=tuple(named[n] for n in spoken),
        rows=tuple(
            dataclasses.replace(row, entries=tuple(row.entries[n] for n in spoken)) for row in rows
        ),
        silent=tuple(
            f"{named[n].heading} {_reason([row.entries[n] for row in rows])}"
            for n in range(len(columns))
            if n not in spoken
        ),
        gaps=tuple(
            gap
            for gap in summary.gaps
            if gap.point.key == point.key and gap.driver not in {row.driver for row in rows}
        ),
    )


def _has_something(entries: Iterable[Entry | None]) -> bool:
    """Whether a column has a number, or a word on work, of any runtime."""
    return any(entry is not None and (entry.has_value or entry.qualifiers) for entry in entries)


def _reason(entries: Iterable[Entry | None]) -> str:
    """Why a column has no number: the reason of its first place."""
    return next(entry.value for entry in entries if entry is not None)


def _named(column: Column, entries: Iterable[Entry | None]) -> Column:
    """The column under a heading that names the statistic that stands in it."""
    used = {entry.cell.statistic: None for entry in entries if entry is not None}
    return dataclasses.replace(column, heading=column.title(*used), names_statistic=False)


def _version(driver: DriverSummary) -> str:
    return driver.version or "version unknown"


def _entry(
    summary: RunSummary,
    column: Column,
    cells: Mapping[tuple[str, str, Statistic], Cell],
    driver: str,
) -> Entry | None:
    for statistic in column.statistics:
        cell = cells.get((driver, column.metric, statistic))
        if cell is not None:
            score = summary.score(point=cell.point, driver=driver, metric=cell.metric)
            return make_entry(cell, summary.metrics[cell.metric], show=column.show, score=score)
    return None


def known_value(cell: Cell, score: Score | None) -> float | None:
    """The number of a place, though it be one without an interval, as of a trial that was cut."""
    if cell.estimate.point is not None:
        return cell.estimate.point
    return None if score is None else score.value


def make_entry(cell: Cell, metric: Metric, *, show: Show, score: Score | None = None) -> Entry:
    """One place of a table."""
    estimate, ratio = cell.estimate, cell.ratio
    is_compared = show is Show.RATIO
    has_ratio = is_compared and isinstance(ratio, Estimate)
    parts = [metric.meaning, metric.method]
    if isinstance(estimate, Estimate):
        parts.append(f"{estimate.method}; {cell.n} values in {cell.blocks_count} blocks")
    else:
        parts.append(estimate.reason)
    if cell.outliers_count:
        parts.append(f"{cell.outliers_count} values beyond the outer fences, kept")
    parts += [f"{mark.glyph} {mark.code}: {mark.meaning}" for mark in map(mark_of, cell.marks)]
    if isinstance(ratio, Estimate):
        parts.append(ratio.method)
    elif ratio is not None:
        parts.append(f"ratio: {ratio.reason}")
    return Entry(
        cell=cell,
        value=_value(estimate, metric.unit, score),
        interval=format_interval(estimate, metric.unit) if isinstance(estimate, Estimate) else "",
        ratio=format_factor(ratio.point) if has_ratio and isinstance(ratio, Estimate) else "",
        ratio_interval=(
            format_ratio_interval(ratio) if has_ratio and isinstance(ratio, Estimate) else ""
        ),
        verdict=cell.verdict if is_compared else Verdict.NOT_JUDGED,
        verdict_word=verdict_word(cell.verdict, metric) if is_compared else "",
        explanation=". ".join(parts),
        qualifiers=qualifiers(
            score, metric.unit, has_no_interval=not isinstance(estimate, Estimate)
        ),
    )


def _value(estimate: Estimate | NotAvailable, unit: str, score: Score | None) -> str:
    if isinstance(estimate, Estimate):
        return format_number(estimate.point, unit)
    if score is None:
        return short_reason(estimate.reason)
    if score.value is None:
        return score.status.value
    return format_number(score.value, unit)
