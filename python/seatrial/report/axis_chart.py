"""Draws lines along an axis: points with intervals, gaps with their reason, lines of other runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import altair as alt

from seatrial.model.estimate import Estimate
from seatrial.report.parts import (
    AXIS_UNITS,
    BYTES_PER_MIB,
    NEUTRAL,
    Figure,
    Values,
    finish,
    highlight,
    legend,
    log_ticks,
)
from seatrial.report.view import format_estimate, short_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.model.summary import Cell
    from seatrial.report.palette import Ink

#: Few blocks give wide intervals, which would leave nothing to see of the points.
FRAME_FACTOR: Final = 1.6
HEIGHT: Final = 280
SMALL_HEIGHT: Final = 200
DASHES: Final = ([2, 2], [7, 3], [7, 3, 2, 3], [1, 3])
#: So many numbers fit below any axis; of more, those that keep this distance to each other.
LABELS_MAX: Final = 4
LABEL_ROOM_RATIO: Final = 0.085
#: As many gaps are told under a figure; all of them stand in the tables.
GAPS_TOLD_MAX: Final = 4
#: Lines stand this far beside each other on the axis, so that none hides another's interval.
DODGE_RATIO: Final = 1.02
#: What stands under an axis.
AXES: Final = {
    "concurrency": "started at once",
    "background": "others on the host",
    "count": "live sandboxes",
    "memory_bytes": "memory limit, MiB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A number at a place of the axis, or why there is none."""

    x: float
    y: float | None = None
    low: float | None = None
    high: float | None = None
    text: str = ""
    reason: str = ""


def cell_mark(cell: Cell, x: float, *, unit: str) -> Mark:
    """The mark of a cell of the tables; a single reading has no interval, but is there."""
    estimate = cell.estimate
    if not isinstance(estimate, Estimate):
        reason = short_reason(estimate.reason)
        return Mark(x=x, y=estimate.point, text=estimate.reason, reason=reason)
    return Mark(
        x=x,
        y=estimate.point,
        low=estimate.low,
        high=estimate.high,
        text=format_estimate(estimate, unit),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Marks that belong together."""

    name: str
    marks: tuple[Mark, ...]
    is_tail: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisChart:
    """What is said about the lines."""

    name: str
    bench: str
    title: str
    caption: str
    note: str
    axis: str
    unit: str
    is_log: bool
    is_small: bool

    @property
    def divisor(self) -> float:
        """What values are divided by."""
        return AXIS_UNITS.get(self.unit, (1, self.unit))[0]

    @property
    def label(self) -> str:
        """The name of the vertical axis."""
        return AXIS_UNITS.get(self.unit, (1, self.unit))[1]

    @property
    def place_divisor(self) -> float:
        """What places on the axis are divided by."""
        return BYTES_PER_MIB if self.axis.endswith("_bytes") else 1


def draw(
    chart: AxisChart,
    lines: Sequence[Line],
    inks: Mapping[str, Ink],
    *,
    references: Sequence[Line] = (),
    frame: Iterable[Line] = (),
) -> Figure:
    """The figure of lines, with thin ones of other runs behind them.

    Args:
        chart: What is said about it.
        lines: What was measured.
        inks: Colour and sign of each line, by its name.
        references: What others measured.
        frame: All lines that must fit into the vertical axis, so that figures side by side have
            the same one.
    """
    values = _values(chart, lines)
    names = [name for name in inks if name in {line.name for line in lines}]
    others = _values(chart, references, is_dodged=False)
    ends = _ends(chart, frame)
    x, y_scale = _x(chart, [*values, *others]), _scale(chart, ends)
    label = f"{chart.label} (logarithmic)" if chart.is_log else chart.label
    ticks = alt.Axis(values=log_ticks(ends), format="~g") if chart.is_log else alt.Axis(format="~g")
    y = alt.Y("y:Q", title=label, scale=y_scale, axis=ticks)
    scales = {
        "color": alt.Scale(domain=names, range=[inks[name].colour for name in names]),
        "shape": alt.Scale(domain=names, range=[inks[name].shape for name in names]),
    }
    base = _base(values, x, label, scales["color"])
    height = SMALL_HEIGHT if chart.is_small else HEIGHT
    layers: list[alt.Chart | alt.LayerChart] = [
        *_reference_layers(others, x, y, y_scale),
        *_line_layers(
            base,
            y,
            y_scale,
            has_tail=any(line.is_tail for line in lines),
            has_bars=any(
                mark.low is not None for line in lines for mark in line.marks if not line.is_tail
            ),
        ),
        _point_layer(base, y, scales["shape"]),
    ]
    if any(value["reason"] and value["y"] is None for value in values):
        layers.append(_gap_layer(base, at=height - 6))
    return Figure(
        name=chart.name,
        bench=chart.bench,
        title=chart.title,
        caption=_caption(chart, lines, references),
        spec=finish(alt.layer(*layers), height=height),
        is_small=chart.is_small,
    )


def _gap_layer(base: alt.Chart, *, at: float) -> alt.Chart:
    """A cross where there is a reason in place of a number."""
    gaps: alt.Chart = base.transform_filter("datum.y === null && datum.reason !== ''")
    crosses: alt.Chart = gaps.mark_text(text="✕", fontSize=13, dy=-2)
    return crosses.encode(y=alt.value(at))


def _values(chart: AxisChart, lines: Sequence[Line], *, is_dodged: bool = True) -> Values:
    names = list(dict.fromkeys(line.name for line in lines))
    middle = (len(names) - 1) / 2
    return [
        {
            "driver": line.name,
            "statistic": "p99" if line.is_tail else "",
            "x": mark.x / chart.place_divisor,
            "shown": mark.x
            / chart.place_divisor
            * (DODGE_RATIO ** (names.index(line.name) - middle) if is_dodged else 1),
            **{
                end: None if value is None else value / chart.divisor
                for end, value in (("y", mark.y), ("low", mark.low), ("high", mark.high))
            },
            "text": mark.text,
            "reason": mark.reason,
        }
        for line in lines
        for mark in (_drawable(chart, one) for one in line.marks)
    ]


def _drawable(chart: AxisChart, mark: Mark) -> Mark:
    """The mark; on a logarithmic axis what is not above nought has no place, and says so."""
    if not chart.is_log or mark.y is None or mark.y > 0:
        return mark
    return Mark(x=mark.x, reason=f"{mark.text}, which a logarithmic axis cannot show")


def _ends(chart: AxisChart, lines: Iterable[Line]) -> tuple[float, float]:
    """The vertical axis holds all points with room around them, whatever their intervals do."""
    known = [
        mark.y / chart.divisor
        for line in lines
        for mark in line.marks
        if mark.y is not None and (mark.y > 0 or not chart.is_log)
    ]
    low, high = min(known, default=1), max(known, default=1)
    if not chart.is_log:
        return min(0.0, low), high * 1.15 or 1
    return low / FRAME_FACTOR, high * FRAME_FACTOR


def _scale(chart: AxisChart, ends: tuple[float, float]) -> alt.Scale:
    kind: Literal["log", "linear"] = "log" if chart.is_log else "linear"
    return alt.Scale(type=kind, nice=False, domain=list(ends), clamp=True)


def _x(chart: AxisChart, values: Values) -> alt.X:
    places = sorted({value["x"] for value in values if isinstance(value["x"], float)})
    # There is no place for nought on a logarithmic axis.
    kind: Literal["symlog", "log"] = "symlog" if places and places[0] <= 0 else "log"
    return alt.X(
        "shown:Q",
        title=f"{AXES.get(chart.axis, chart.axis)} (logarithmic)",
        scale=alt.Scale(type=kind, nice=False, padding=14),
        axis=alt.Axis(
            values=_labelled(places),
            # One number after the other: all together would get the unit of the largest.
            # 2048 MiB are no "2.048k".
            labelExpr=f"format(datum.value, '{'~g' if chart.place_divisor > 1 else '~s'}')",
            grid=False,
            labelOverlap=False,
        ),
    )


def _labelled(places: Sequence[float]) -> list[float]:
    """The places that get a number: both ends, and between them whatever has room."""
    if len(places) <= LABELS_MAX:
        return list(places)
    width = math.log1p(places[-1]) - math.log1p(places[0])
    kept = [places[-1]]
    for place in reversed(places[1:-1]):
        rooms = [abs(math.log1p(place) - math.log1p(other)) for other in (kept[-1], places[0])]
        if min(rooms) >= width * LABEL_ROOM_RATIO:
            kept.append(place)
    return [places[0], *reversed(kept)]


def _base(values: Values, x: alt.X, label: str, colours: alt.Scale) -> alt.Chart:
    chart: alt.Chart = alt.Chart(alt.InlineData(values=values)).encode(
        x=x,
        color=alt.Color("driver:N", scale=colours, legend=alt.Legend(title=None, orient="top")),
        opacity=highlight(),
        tooltip=[
            alt.Tooltip("driver:N", title="line"),
            alt.Tooltip("x:Q", title="at", format="~g"),
            alt.Tooltip("text:N", title=label),
            alt.Tooltip("reason:N", title="missing"),
        ],
    )
    return chart


def _line_layers(
    base: alt.Chart, y: alt.Y, scale: alt.Scale, *, has_tail: bool, has_bars: bool
) -> list[alt.Chart]:
    """Layers without anything in them would make the axes wonder where they end."""
    tail, main = ("datum.statistic === 'p99'", "datum.statistic !== 'p99'")
    layers: list[alt.Chart] = []
    if has_tail:
        layers.append(
            base.transform_filter(tail).mark_line(strokeWidth=1.2, strokeDash=[4, 3]).encode(y=y)
        )
    layers.append(
        base.transform_filter(main)
        .mark_line(strokeWidth=1.8, invalid="break-paths-show-domains")
        .encode(y=y)
    )
    if has_bars:
        layers.append(
            base.transform_filter(f"datum.low !== null && {main}")
            .mark_rule(strokeWidth=1.4, strokeOpacity=0.65)
            .encode(y=alt.Y("low:Q", scale=scale, title=""), y2="high:Q")
        )
    return layers


def _point_layer(base: alt.Chart, y: alt.Y, shapes: alt.Scale) -> alt.Chart:
    points: alt.Chart = (
        base.transform_filter("datum.statistic !== 'p99' && datum.y !== null")
        .mark_point(filled=True, size=58)
        .encode(
            y=y,
            shape=alt.Shape("driver:N", scale=shapes, legend=alt.Legend(title=None, orient="top")),
        )
        .add_params(legend())
    )
    return points


def _reference_layers(values: Values, x: alt.X, y: alt.Y, scale: alt.Scale) -> list[alt.Chart]:
    """Thin grey lines, each with its name at its end."""
    if not values:
        return []
    known = [value for value in values if value["y"] is not None]
    names = list(dict.fromkeys(str(value["driver"]) for value in known))
    last = {value["driver"]: value for value in known}
    dashes = [DASHES[number % len(DASHES)] for number in range(len(names))]
    base = alt.Chart(alt.InlineData(values=known)).encode(
        x=x,
        tooltip=[
            alt.Tooltip("driver:N", title="not of this run"),
            alt.Tooltip("x:Q", title="at", format="~g"),
            alt.Tooltip("text:N", title="theirs"),
        ],
    )
    bars = base.transform_filter("datum.low !== null")
    return [
        base.mark_line(strokeWidth=1.1, color=NEUTRAL).encode(
            y=y,
            strokeDash=alt.StrokeDash(
                "driver:N", scale=alt.Scale(domain=names, range=dashes), legend=None
            ),
        ),
        *(
            [
                bars.mark_rule(strokeWidth=0.8, color=NEUTRAL).encode(
                    y=alt.Y("low:Q", scale=scale, title=""), y2="high:Q"
                )
            ]
            if any(value["low"] is not None for value in known)
            else []
        ),
        alt.Chart(alt.InlineData(values=list(last.values())))
        .mark_text(align="right", dy=-9, fontSize=11.5, color=NEUTRAL, fontStyle="italic")
        .encode(x=x, y=y, text="driver:N"),
    ]


def _caption(chart: AxisChart, lines: Sequence[Line], references: Sequence[Line]) -> str:
    parts = [chart.caption, "Bars are intervals, which may go on beyond the frame.", chart.note]
    if references:
        parts.append("Compare the shape of other runs' lines, not their height.")
    missing: dict[str, dict[str, list[str]]] = {}
    for line in lines:
        for mark in (_drawable(chart, one) for one in line.marks):
            if mark.reason and mark.y is None and not line.is_tail:
                places = missing.setdefault(mark.reason, {}).setdefault(line.name, [])
                places.append(f"{mark.x / chart.place_divisor:g}")
    if missing:
        told = [
            f"{', '.join(f'{name} at {_and(places)}' for name, places in names.items())}: {reason}"
            for reason, names in list(missing.items())[:GAPS_TOLD_MAX]
        ]
        rest = len(missing) - len(told)
        more = f"; the tables have {rest} more" if rest > 0 else ""
        parts.append(f"✕ no number: {'; '.join(told)}{more}.")
    return " ".join(part for part in parts if part)


def _and(places: Sequence[str]) -> str:
    return " and ".join([", ".join(places[:-1]), places[-1]]) if len(places) > 1 else places[0]
