"""Figures of distributions: how starts and requests spread."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import altair as alt

from seatrial.report.parts import (
    NS_PER_MS,
    Figure,
    Values,
    colour,
    dash,
    finish,
    highlight,
    legend,
    log_ticks,
)
from seatrial.report.view import point_title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.model.summary import Distribution, RunSummary


def start_distributions(summary: RunSummary) -> list[Figure]:
    """Latency of the first byte, one figure a concurrency."""
    groups = _by_point(summary, "start_first_byte_ns")
    figures = [
        _ecdf(summary, group, name=f"start-latency-{number}")
        for number, group in enumerate(groups, start=1)
    ]
    is_small = len(figures) > 2  # noqa: PLR2004 - two stand side by side at full size
    return [dataclasses.replace(figure, is_small=is_small) for figure in figures]


def response_distributions(summary: RunSummary) -> list[Figure]:
    """Response time of open loops and service time of closed ones, over a log quantile axis."""
    groups = [
        *(group for group in _by_point(summary, "response_time_ns") if group[0].bench == "load"),
        *(
            group
            for group in _by_point(summary, "service_time_ns")
            if group[0].point.values.get("mode") == "closed" and group[0].bench == "load"
        ),
    ]
    return [
        _log_quantiles(summary, group, name=f"load-latency-{number}")
        for number, group in enumerate(groups, start=1)
    ]


def _by_point(summary: RunSummary, metric: str) -> list[list[Distribution]]:
    groups: dict[str, list[Distribution]] = {}
    for one in summary.distributions:
        if one.metric == metric:
            groups.setdefault(one.point.key, []).append(one)
    return list(groups.values())


def _ecdf(summary: RunSummary, group: Sequence[Distribution], *, name: str) -> Figure:
    values: Values = [
        {
            "driver": one.driver,
            "x": value / NS_PER_MS,
            "q": q,
            "share": f"{q:.1%}",
            "order": number,
        }
        for one in group
        for number, (q, value) in enumerate(zip(one.quantiles, one.values, strict=True))
    ]
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X(
                "x:Q",
                title="ms (logarithmic)",
                scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(values=log_ticks(value["x"] for value in values), format="~g"),
            ),
            y=alt.Y(
                "q:Q",
                title="share of starts",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 0.9, 1]),
            ),
            order="order:Q",
            color=colour(summary, values),
            strokeDash=dash(summary, values),
            opacity=highlight(),
            tooltip=[
                alt.Tooltip("driver:N"),
                alt.Tooltip("x:Q", title="ms", format=".3~g"),
                alt.Tooltip("share:N", title="starts up to here"),
            ],
        )
        .add_params(legend())
    )
    where = point_title(group[0].point)
    return Figure(
        name=name,
        bench=group[0].bench,
        title=f"Start latency, {where}",
        caption="Share of starts whose first byte had come by then; a steep line is a steady "
        "runtime. The dashed line is the launcher's floor.",
        spec=finish(chart, height=280),
    )


def _log_quantiles(summary: RunSummary, group: Sequence[Distribution], *, name: str) -> Figure:
    values: Values = [
        {"driver": one.driver, "rarity": 1 / (1 - q), "y": value / NS_PER_MS, "share": f"{q:.4%}"}
        for one in group
        for q, value in zip(one.quantiles, one.values, strict=True)
    ]
    labels = (
        "datum.value <= 1 ? '0' : datum.value <= 2 ? 'p50' : datum.value <= 10 ? 'p90' : "
        "datum.value <= 100 ? 'p99' : datum.value <= 1000 ? 'p99.9' : 'p99.99'"
    )
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X(
                "rarity:Q",
                title="quantile (logarithmic in the tail)",
                scale=alt.Scale(type="log", nice=False, domainMin=1),
                axis=alt.Axis(values=[1, 2, 10, 100, 1000, 10000], labelExpr=labels),
            ),
            y=alt.Y(
                "y:Q",
                title="ms (logarithmic)",
                scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(values=log_ticks(value["y"] for value in values), format="~g"),
            ),
            color=colour(summary, values),
            opacity=highlight(),
            tooltip=[
                alt.Tooltip("driver:N"),
                alt.Tooltip("share:N", title="quantile"),
                alt.Tooltip("y:Q", title="ms", format=".3~g"),
            ],
        )
        .add_params(legend())
    )
    is_response = group[0].metric == "response_time_ns"
    what = "Response time" if is_response else "Service time"
    meaning = (
        "From the instant a request was due to its last byte, waiting included."
        if is_response
        else "From sending a request to its last byte, with every connection kept busy."
    )
    return Figure(
        name=name,
        bench=group[0].bench,
        title=f"{what}, {point_title(group[0].point)}",
        caption=f"{meaning} The far right is single requests: read it as a picture; the table has "
        "the quantiles that the sample supports.",
        spec=finish(chart, height=280),
    )
