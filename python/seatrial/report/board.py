"""Everything in one table, the order of the runtimes in one line a number, and what words mean.

The table has a row a number and a column a runtime, each with its ratio to the baseline. The lines
say who needs more and who gets less, the worst first; METHODOLOGY 6.3 has the rules of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.summary import Relation, Statistic, Status, Verdict
from seatrial.report.layout import COLUMNS, Column
from seatrial.report.runtimes import is_emulated
from seatrial.report.view import (
    GLYPHS,
    format_factor,
    format_number,
    known_value,
    mark_of,
    point_title,
    qualifiers,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seatrial.model.plan import Point
    from seatrial.model.summary import Cell, Ordering, RunSummary, Score

CACHED: Final = "cached"
#: How the names of numbers begin that are meant to be the device's.
OF_THE_DEVICE: Final = ("fio_", "dd_cold_", "dd_sync_")
LOCATION: Final = (Statistic.P50, Statistic.MEAN)
#: Axes of storms and crowds: what stands in the overview is the most at once that somebody
#: measured, beside the fewest others, and what an axis is called there.
CROWDS: Final = {"concurrency": "at once", "count": "live"}
#: Of the variants of fio the first that was run stands in the overview.
VARIANTS: Final = ("direct", "seed", "cached")
#: Fewer numbers than this are seen at a glance without a table of their own.
OVERVIEW_ROWS_MIN: Final = 5
STATUS_MEANINGS: Final = {
    Status.STABLE: "all repeats gave a number, and their coefficient of variation is at most 5 %",
    Status.UNSURE: "the same with at most 15 %, or there are fewer than three repeats",
    Status.UNSTABLE: "it is more than 15 %, or some repeats failed",
    Status.UNSUPPORTED: "every repeat failed because an operation does not exist there",
    Status.FAILED: "every repeat failed, at least one for another reason",
    Status.SKIPPED: "something it needs is missing, so it was not tried",
}
RELATION_MEANINGS: Final = {
    Relation.MORE: "more or less (<) by at least 10 %, and the interval of the ratio excludes 1",
    Relation.BARELY_MORE: "more or less (<=) by less than 10 %, and the interval excludes 1",
    Relation.UNRESOLVED: "the interval of the ratio holds 1, or there is none",
}


def _row(heading: str, metric: str, *statistics: Statistic) -> Column:
    return Column(heading=heading, metric=metric, statistics=statistics or LOCATION)


OVERVIEW: Final = (
    Column(
        heading="Start, first byte",
        metric="start_first_byte_ns",
        statistics=LOCATION,
        only_at=("concurrency", 1),
    ),
    _row("Makespan", "start_makespan_ns"),
    _row("CPU time of a start", "start_cpu_ns"),
    _row("Delete", "teardown_ns"),
    _row("Makespan, RunD's", "rund.makespan_mean"),
    _row("Latency, RunD's", "rund.latency_mean"),
    _row("CPU of the host, RunD's", "rund.host_cpu_mean"),
    _row("PSS, RunD's", "rund.memory_pss_mean"),
    _row("PSS of a sandbox", "memory_pss_bytes"),
    _row("Charge of its control group", "memory_cgroup_bytes"),
    _row("CPU of an idle one", "idle_cpu_ratio"),
    _row("Hello, real time", "hello_real_ns"),
    _row("Hello, CPU time", "hello_cpu_ns"),
    _row("Memory, PSS", "idle_pss_bytes"),
    _row("Memory of one more, PSS", "memory_pss_total_bytes", Statistic.SLOPE),
    _row("System call", "syscall_ns"),
    _row("Page fault", "page_fault_ns"),
    _row("Fork, exec", "fork_exec_ns"),
    _row("Memory copy", "memory_copy_bytes_per_s"),
    _row("Function, native", "function_native_ns"),
    _row("Function, Python started", "function_python_ns"),
    _row("dd, write calls", "dd_write_ops_per_s"),
    _row("dd, read calls", "dd_read_ops_per_s"),
    _row("dd, read after dropping", "dd_cold_read_bytes_per_s"),
    _row("dd, write with fsync", "dd_sync_write_bytes_per_s"),
    _row("fio read", "fio_read_bytes_per_s"),
    _row("fio write", "fio_write_bytes_per_s"),
    _row("fio randread", "fio_randread_bytes_per_s"),
    _row("fio randwrite", "fio_randwrite_bytes_per_s"),
    _row("fio randrw, read", "fio_randrw_read_bytes_per_s"),
    _row("fio randrw, write", "fio_randrw_write_bytes_per_s"),
    _row("iperf3 into it", "network_to_bytes_per_s"),
    _row("iperf3 out of it", "network_from_bytes_per_s"),
    _row("wget", "download_wget_bytes_per_s"),
    _row("curl", "download_curl_bytes_per_s"),
    _row("curl, upload", "upload_curl_bytes_per_s"),
)
#: The numbers whose order is told in one line each; the page has all.
ORDERED: Final = frozenset(column.metric for column in OVERVIEW) - {"hello_cpu_ns"}
#: Before a ratio of medians that has no interval.
BARE: Final = "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One number of the overview."""

    value: str
    """The number, or the word of its status."""
    signs: str = ""
    ratio: str = ""
    """Times the baseline; with a tilde where it has no interval."""
    verdict: Verdict = Verdict.NOT_JUDGED
    explanation: str = ""

    @property
    def glyph(self) -> str:
        """The sign of the verdict."""
        return GLYPHS[self.verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewRow:
    """One number of all runtimes."""

    heading: str
    metric: str
    places: tuple[Place | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The table of everything."""

    drivers: tuple[str, ...]
    notes: tuple[str, ...]
    """What must be known of each runtime; empty where nothing must."""
    rows: tuple[OverviewRow, ...]

    @property
    def has_bare_ratios(self) -> bool:
        """Whether a ratio stands there without an interval."""
        places = [place for row in self.rows for place in row.places if place is not None]
        return any(place.ratio.startswith(BARE) for place in places)


def overview_of(summary: RunSummary) -> Overview | None:
    """The table; None when there is too little for one."""
    drivers = tuple(driver.name for driver in summary.drivers)
    rows: list[OverviewRow] = []
    for column in OVERVIEW:
        found = _cells(summary, column)
        if not any(_value(summary, cell) is not None for cell in found.values()):
            continue
        base = found.get(summary.baseline)
        at = next(iter(found.values())).point
        places = tuple(
            _place(summary, found[name], base) if name in found else _gap(summary, name, at)
            for name in drivers
        )
        heading = _heading(column, at)
        rows.append(OverviewRow(heading=heading, metric=column.metric, places=places))
    if len(rows) < OVERVIEW_ROWS_MIN or len(drivers) < 2:  # noqa: PLR2004 - one runtime has no ratios
        return None
    notes = tuple("TCG, emulated" if is_emulated(driver) else "" for driver in summary.drivers)
    return Overview(drivers=drivers, notes=notes, rows=tuple(rows))


def ordering_lines(summary: RunSummary, *, only_main: bool = False) -> tuple[str, ...]:
    """One line a number: ``Hello, real: runsc > runc >= lean``."""
    return tuple(
        ordering_line(one)
        for one in summary.orderings
        if not only_main or (one.metric in ORDERED and one.relations)
    )


def ordering_line(ordering: Ordering) -> str:
    """The line of one number; numbers of a cache carry their sign, the others' words say why."""
    sign = mark_of("cached").glyph
    words: list[str] = []
    for number, driver in enumerate(ordering.drivers):
        if number:
            words.append(ordering.relations[number - 1].value)
        words.append(driver + (sign if driver in ordering.cached else ""))
    line = f"{_title(ordering)}: {' '.join(words)}"
    left_out = [f"{driver} ({why})" for driver, why in ordering.unranked.items()]
    return f"{line}; not ranked: {', '.join(left_out)}" if left_out else line


def has_statuses(summary: RunSummary) -> bool:
    """Whether the words need their legend."""
    return bool(summary.scores)


def _cells(summary: RunSummary, column: Column) -> dict[str, Cell]:
    """The cells of a row by driver, at the one point that stands for the number."""
    fitting = [
        cell
        for cell in summary.cells
        if cell.metric == column.metric
        and cell.statistic in column.statistics
        and column.fits(cell.point)
    ]
    variants = {cell.point.values.get("variant") for cell in fitting}
    chosen = next((one for one in VARIANTS if one in variants), None)
    points = [cell.point for cell in fitting if cell.point.values.get("variant") == chosen]
    if not points:
        return {}
    at = max(points, key=_crowd)  # the first of equals
    best: dict[str, Cell] = {}
    for statistic in reversed(column.statistics):
        best |= {
            cell.driver: cell
            for cell in fitting
            if cell.point.key == at.key and cell.statistic is statistic
        }
    return best


def _crowd(point: Point) -> tuple[float, float]:
    """Ranks points: few others, then many at once."""
    background = point.values.get("background", 0)
    sizes = (point.values.get(axis) for axis in CROWDS)
    size = next((float(one) for one in sizes if isinstance(one, int | float)), 0.0)
    return -float(background), size


def _heading(column: Column, point: Point) -> str:
    variant = point.values.get("variant")
    parts = [column.heading, *([str(variant)] if variant else [])]
    if column.only_at is None:
        parts += [
            f"{point.values[axis]} {word}" for axis, word in CROWDS.items() if axis in point.values
        ]
    return ", ".join(parts)


def _score(summary: RunSummary, cell: Cell) -> Score | None:
    return summary.score(point=cell.point, driver=cell.driver, metric=cell.metric)


def _value(summary: RunSummary, cell: Cell | None) -> float | None:
    return None if cell is None else known_value(cell, _score(summary, cell))


def _place(summary: RunSummary, cell: Cell, base: Cell | None) -> Place:
    unit = summary.metrics[cell.metric].unit
    value, reference = _value(summary, cell), _value(summary, base)
    signs = "".join(mark_of(code).glyph for code in cell.marks)
    score = _score(summary, cell)
    about = "; ".join(qualifiers(score, unit))
    if value is None:
        word = score.status.value if score is not None else "n/a"
        reason = cell.estimate.reason if isinstance(cell.estimate, NotAvailable) else ""
        return Place(value=word, signs=signs, explanation=reason)
    is_of_another_kind = (
        base is not None
        and cell.metric.startswith(OF_THE_DEVICE)
        and (CACHED in cell.marks) != (CACHED in base.marks)
    )
    if cell.driver == summary.baseline or is_of_another_kind:
        ratio = ""  # a number of memory over one of a device says nothing
    elif isinstance(cell.ratio, Estimate):
        ratio = format_factor(cell.ratio.point)
    elif reference is not None and reference > 0:
        ratio = f"{BARE}{format_factor(value / reference)}"
    else:
        ratio = ""
    return Place(
        value=format_number(value, unit),
        signs=signs,
        ratio=ratio,
        verdict=cell.verdict if isinstance(cell.ratio, Estimate) else Verdict.NOT_JUDGED,
        explanation=about,
    )


def _gap(summary: RunSummary, driver: str, point: Point) -> Place | None:
    """Why a runtime has no number there; None where nobody asked for one."""
    for gap in summary.gaps:
        if (gap.driver, gap.point.key) == (driver, point.key):
            return Place(value=f"✕ {gap.status}", explanation=gap.reason)
    return None


def _title(ordering: Ordering) -> str:
    headings = (column for column in _inside() if column.metric == ordering.metric)
    column = next(headings, None)
    heading = ordering.metric if column is None else column.heading
    where = point_title(ordering.point)
    return f"{where}, {heading}" if where else heading


def _inside() -> Iterable[Column]:
    return COLUMNS["inside"]
