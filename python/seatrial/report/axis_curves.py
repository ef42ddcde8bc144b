"""Figures of numbers along an axis: storms, their CPU time, memory by count, amplification.

Which axes a run has is read from its points: a number is drawn against each axis that has at least
two values, one figure a combination of the other axes. Where only one runtime was measured the
other axis makes the lines, as papers draw it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.model.plan import Point
from seatrial.model.summary import FLOOR, Statistic
from seatrial.report.axis_chart import AxisChart, Line, Mark, cell_mark, draw
from seatrial.report.palette import inks_of, inks_of_steps
from seatrial.report.parts import driver_names
from seatrial.report.references import SOURCES_MAX, reference_words
from seatrial.report.runtimes import emulated_note
from seatrial.report.view import point_title
from seatrial.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.model.scalar import Scalar
    from seatrial.model.summary import Cell, Gap, Reference, RunSummary
    from seatrial.report.parts import Figure

LOCATION: Final = (Statistic.P50, Statistic.MEAN, Statistic.PROPORTION)
TAIL: Final = Statistic.P99
#: Values of axes in words.
SHORT: Final = {
    "concurrency": "{} at once",
    "background": "{} others",
    "count": "{} live",
    "memory_bytes": "limit {}",
}
WORDS: Final = {
    Statistic.P50: "Medians",
    Statistic.MEAN: "Means",
    Statistic.PROPORTION: "Proportions",
}
#: Values of axes that say the same as no such axis.
PLAIN: Final[Mapping[str, Scalar]] = {"background": 0, "cache": "warm"}
#: More combinations of the other axes are left to the tables.
COMBINATIONS_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A number that is drawn against an axis, whichever bench measured it."""

    name: str
    title: str
    caption: str
    metrics: tuple[str, ...]
    """Ours, and those of other tools that stand for the same question."""
    axis: str
    has_tail: bool = False
    """Whether the 99th percentile is drawn as well."""
    is_log: bool = True


CURVES: Final[tuple[Curve, ...]] = (
    Curve(
        name="makespan",
        title="Makespan",
        caption="From the release of a batch to the last sandbox of it that came up, against how "
        "many start at once.",
        metrics=("start_makespan_ns", "rund.makespan_mean"),
        axis="concurrency",
    ),
    Curve(
        name="waiting",
        title="Latency of one start",
        caption="From the release until a sandbox answers, against how many start at once; "
        "dashed the 99th percentile where the sample supports it.",
        metrics=("start_first_reply_ns", "rund.latency"),
        axis="concurrency",
        has_tail=True,
    ),
    Curve(
        name="first-byte",
        title="First byte of one start",
        caption="Until the sandbox's process sent its first byte, against how many start at once; "
        "dashed the 99th percentile where the sample supports it.",
        metrics=("start_first_byte_ns",),
        axis="concurrency",
        has_tail=True,
    ),
    Curve(
        name="cpu",
        title="CPU time of one start",
        caption="User and system time in the books of the sandbox, its runtime included.",
        metrics=("start_cpu_ns",),
        axis="concurrency",
    ),
    Curve(
        name="host-cpu",
        title="CPU time of the host for one start",
        caption="Whatever the whole host was busy with during a batch, for each sandbox in it; the "
        "tool's own part is in it.",
        metrics=("start_host_cpu_ns", "rund.host_cpu_mean"),
        axis="concurrency",
    ),
    Curve(
        name="delete",
        title="Delete latency",
        caption="From the stop request until nothing of the sandbox is left; all of a batch are "
        "stopped at once.",
        metrics=("teardown_ns",),
        axis="concurrency",
    ),
    Curve(
        name="rate",
        title="Starts a second",
        caption="While a batch came up. A line that turns down says that more at once are slower "
        "than fewer.",
        metrics=("start_rps",),
        axis="concurrency",
    ),
    Curve(
        name="makespan-background",
        title="Makespan beside others",
        caption="The same batch, against how many other sandboxes live on the host meanwhile.",
        metrics=("start_makespan_ns", "rund.makespan_mean"),
        axis="background",
    ),
    Curve(
        name="amplification",
        title="Amplification",
        caption="How many times as long a batch takes beside so many other sandboxes as beside the "
        "fewest; 1 would be no influence.",
        metrics=("start_amplification_ratio", "rund.amplification"),
        axis="background",
    ),
    Curve(
        name="sandbox-memory",
        title="Memory of one sandbox",
        caption="PSS for each of so many that live at once: what they share is divided among them.",
        metrics=("memory_pss_bytes", "rund.memory_pss_mean"),
        axis="count",
    ),
    Curve(
        name="cgroup",
        title="Charge of one sandbox's control group",
        caption="Kernel memory and page cache included, what others had paid for already left out.",
        metrics=("memory_cgroup_bytes",),
        axis="count",
    ),
    Curve(
        name="idle",
        title="CPU of one idle sandbox",
        caption="Share of one processor that a sandbox uses which has nothing to do.",
        metrics=("idle_cpu_ratio",),
        axis="count",
        is_log=False,
    ),
    Curve(
        name="limit",
        title="Memory of one sandbox by its limit",
        caption="PSS of an idle sandbox against the memory that it may use: a flat line pays for "
        "what is touched, a rising one for what is promised.",
        metrics=("memory_pss_bytes", "rund.memory_pss_mean"),
        axis="memory_bytes",
    ),
)


def axis_figures(summary: RunSummary) -> list[Figure]:
    """Every curve that the run has numbers for."""
    figures: list[Figure] = []
    for bench in summary.benches:
        for curve in CURVES:
            figures += _figures(summary, bench.name, curve)
    return figures


def _figures(summary: RunSummary, bench: str, curve: Curve) -> list[Figure]:
    cells = [
        cell
        for cell in summary.cells
        if cell.bench == bench
        and cell.metric in curve.metrics
        and cell.driver != FLOOR
        and isinstance(cell.point.values.get(curve.axis), int | float)
        and cell.statistic in {*LOCATION, *([TAIL] if curve.has_tail else [])}
    ]
    groups = _by_others(cells, curve.axis)
    known = {key: group for key, group in groups.items() if _is_curve(group, curve.axis)}
    if not known or len(known) > COMBINATIONS_MAX:
        return []
    drivers = list(dict.fromkeys(cell.driver for cell in cells))
    if len(drivers) == 1 and len(known) > 1:
        return [_of_one_driver(summary, curve, known)]
    lines = {key: _lines_of_drivers(summary, curve, group) for key, group in known.items()}
    theirs = {
        key: _references(summary, curve, [_others(group[0].point, curve.axis)])
        for key, group in known.items()
    }
    frame = [*(one for group in lines.values() for one in group)]
    frame += [_their_line(one) for group in theirs.values() for one in group]
    inks = inks_of(tuple(driver_names(summary)))
    return [
        draw(
            _chart(summary, known[key], curve, _place(key, number, len(known)), theirs[key]),
            lines[key],
            inks,
            references=[_their_line(one) for one in theirs[key]],
            frame=frame,
        )
        for number, key in enumerate(known, start=1)
    ]


def _of_one_driver(
    summary: RunSummary,
    curve: Curve,
    groups: Mapping[str, Sequence[Cell]],
) -> Figure:
    """One line for each combination of the other axes."""
    lines = [
        Line(name=key, is_tail=line.is_tail, marks=line.marks)
        for key, group in groups.items()
        for line in _lines_of_drivers(summary, curve, group)
        if not line.is_tail  # a tail for each of many lines could not be read
    ]
    driver = next(iter(groups.values()))[0].driver
    held = [_others(group[0].point, curve.axis) for group in groups.values()]
    theirs = _references(summary, curve, held)
    others = [_their_line(one) for one in theirs]
    return draw(
        _chart(summary, next(iter(groups.values())), curve, _Place(where=driver), theirs),
        lines,
        inks_of_steps(tuple(groups)),
        references=others,
        frame=[*lines, *others],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Which of several figures of a curve."""

    where: str
    number: int | None = None
    is_small: bool = False


def _place(where: str, number: int, count: int) -> _Place:
    if count == 1:
        return _Place(where="")
    # Two stand side by side at full size.
    return _Place(where=where, number=number, is_small=count > 2)  # noqa: PLR2004 - see above


def _chart(
    summary: RunSummary,
    cells: Sequence[Cell],
    curve: Curve,
    place: _Place,
    theirs: Sequence[Reference],
) -> AxisChart:
    bench, metric = cells[0].bench, cells[0].metric
    return AxisChart(
        name=f"{bench}-{curve.name}" + (f"-{place.number}" if place.number else ""),
        bench=bench,
        title=f"{curve.title}, {place.where}" if place.where else curve.title,
        caption=f"{curve.caption} {WORDS[_statistic(cells)]}.",
        note=f"{emulated_note(summary)}{reference_words(theirs)}".strip(),
        axis=curve.axis,
        unit=summary.metrics[metric].unit,
        is_log=curve.is_log,
        is_small=place.is_small,
    )


def _references(
    summary: RunSummary, curve: Curve, held: Sequence[Mapping[str, Scalar]]
) -> list[Reference]:
    """The lines of other runs of the same number, at the same values of the other axes."""
    places = [_without_plain(one) for one in held]
    found = [
        one
        for one in summary.references
        if one.axis == curve.axis
        and (one.metric in curve.metrics or one.foreign_metric in curve.metrics)
        and _without_plain(one.held) in places
    ]
    return found[:SOURCES_MAX]


def _without_plain(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {name: value for name, value in values.items() if PLAIN.get(name) != value}


def _their_line(reference: Reference) -> Line:
    marks = (
        Mark(x=one.x, y=one.point, low=one.low, high=one.high, text=reference.foreign_metric)
        for one in reference.points
    )
    return Line(name=reference.source, marks=tuple(marks))


def _is_curve(cells: Iterable[Cell], axis: str) -> bool:
    """Whether there are numbers at two places of the axis; amplification has none at the first."""
    found = [cell for cell in cells if cell.estimate.point is not None]
    is_relative = any("amplification" in cell.metric for cell in found)
    return len({cell.point.values[axis] for cell in found}) >= (1 if is_relative else 2)


def _others(point: Point, axis: str) -> dict[str, Scalar]:
    return {name: value for name, value in point.values.items() if name != axis}


def _by_others(cells: Iterable[Cell], axis: str) -> dict[str, list[Cell]]:
    """Cells by the words for their values on the other axes."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        others = Point(bench=cell.bench, values=_others(cell.point, axis))
        groups.setdefault(axis_words(others), []).append(cell)
    return groups


def axis_words(point: Point) -> str:
    """The values of axes in few words, for a legend."""
    words = [
        SHORT[name].format(format_bytes(value) if name == "memory_bytes" else value)
        for name, value in point.values.items()
        if name in SHORT and isinstance(value, int | float)
    ]
    rest = {name: value for name, value in point.values.items() if name not in SHORT}
    title = point_title(Point(bench=point.bench, values=rest)) if rest else ""
    return ", ".join([*words, *([title] if title else [])])


def _lines_of_drivers(summary: RunSummary, curve: Curve, cells: Sequence[Cell]) -> list[Line]:
    """A line a driver, and one of its tail; what is missing on the way is a mark without number."""
    others, statistic = _others(cells[0].point, curve.axis), _statistic(cells)
    lines: list[Line] = []
    for driver in dict.fromkeys(cell.driver for cell in cells):
        own = [cell for cell in cells if cell.driver == driver]
        main = [_mark(summary, cell, curve.axis) for cell in own if cell.statistic is statistic]
        gaps = [
            Mark(x=float(x), reason=gap.reason)
            for gap in summary.gaps
            if isinstance(
                x := _gap_at(gap, driver, cells[0].bench, curve.axis, others), int | float
            )
        ]
        lines.append(Line(name=driver, marks=tuple(sorted([*main, *gaps], key=lambda one: one.x))))
        tail = [_mark(summary, cell, curve.axis) for cell in own if cell.statistic is TAIL]
        known = [mark for mark in tail if mark.y is not None]
        if curve.has_tail and len(known) > 1:
            marks = tuple(sorted(known, key=lambda one: one.x))
            lines.append(Line(name=driver, is_tail=True, marks=marks))
    return lines


def _statistic(cells: Sequence[Cell]) -> Statistic:
    """The one that has the most numbers: all lines of a figure are of the same."""
    known = [cell.statistic for cell in cells if cell.estimate.point is not None]
    return max(LOCATION, key=known.count)


def _gap_at(
    gap: Gap, driver: str, bench: str, axis: str, others: Mapping[str, Scalar]
) -> Scalar | None:
    is_ours = gap.driver == driver and gap.point.bench == bench
    if not is_ours or _others(gap.point, axis) != others:
        return None
    return gap.point.values.get(axis)


def _mark(summary: RunSummary, cell: Cell, axis: str) -> Mark:
    unit = summary.metrics[cell.metric].unit
    return cell_mark(cell, float(cell.point.values[axis]), unit=unit)
