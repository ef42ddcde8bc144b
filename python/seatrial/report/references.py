"""Lines of other runs in a figure: dashed, grey, each with its name at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from seatrial.model.plan import Point

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seatrial.model.summary import Reference, RunSummary, Trend
    from seatrial.report.parts import Values

INK = "#8b949e"
#: Dashes that tell several references apart.
DASHES = ([6, 4], [2, 3], [8, 3, 2, 3], [1, 2])
SOURCES_MAX = 6


def references_beside(
    summary: RunSummary, trends: Iterable[Trend], *, metric: str, axis: str
) -> tuple[Reference, ...]:
    """The references of a metric along an axis, where the other axes are held alike."""
    held = {Point(bench="", values=trend.held).key for trend in trends}
    found = [
        one
        for one in summary.references
        if (one.metric, one.axis) == (metric, axis) and Point(bench="", values=one.held).key in held
    ]
    return tuple(found[:SOURCES_MAX])


def reference_layers(
    references: Iterable[Reference], *, x: alt.X, scale: alt.Scale, divisor: float
) -> list[alt.Chart]:
    """A line, and its name at its last mark; nothing where there is no reference."""
    layers: list[alt.Chart] = []
    for number, one in enumerate(references):
        values: Values = [
            {"x": mark.x, "y": mark.point / divisor, "source": one.source} for mark in one.points
        ]
        base = alt.Chart(alt.InlineData(values=values)).encode(
            x=x,
            y=alt.Y("y:Q", scale=scale, title=""),
            tooltip=[
                alt.Tooltip("source:N", title="reference"),
                alt.Tooltip("x:Q", title=one.axis),
                alt.Tooltip("y:Q", title=one.foreign_metric),
            ],
        )
        dash = DASHES[number % len(DASHES)]
        layers.append(base.mark_line(strokeDash=dash, strokeWidth=1.5, color=INK, point=False))
        layers.append(base.mark_point(size=24, color=INK, filled=True))
        end = alt.Chart(alt.InlineData(values=values[-1:])).encode(
            x=x,
            y=alt.Y("y:Q", scale=scale, title=""),
            text=alt.Text("source:N"),
        )
        layers.append(end.mark_text(align="right", dy=-9, fontSize=11, color=INK))
    return layers


def reference_words(references: Iterable[Reference]) -> str:
    """What a caption says about them, with how their definitions differ."""
    said = dict.fromkeys(
        f"{one.source}: {one.foreign_metric}" + (f" ({one.note})" if one.note else "")
        for one in references
    )
    return f" Grey, for reference: {'; '.join(said)}." if said else ""
