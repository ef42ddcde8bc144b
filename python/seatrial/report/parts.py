"""What figures are made of: drivers' colours and signs, axes, legends.

A specification carries no theme: the page gives it the colours of its paper, and an exported file
gets the light ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt

from seatrial.model.summary import FLOOR
from seatrial.report.palette import inks_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seatrial.model.summary import RunSummary

NS_PER_MS = 1_000_000
BYTES_PER_MIB = 1 << 20
#: For what belongs to no driver; readable on the light and the dark paper.
NEUTRAL = "#838d98"
#: Divisors and labels of axes, by the unit of the metric.
AXIS_UNITS = {
    "ns": (NS_PER_MS, "ms"),
    "bytes": (BYTES_PER_MIB, "MiB"),
    "rps": (1, "1/s"),
    "1/s": (1, "1/s"),
    "bytes/s": (BYTES_PER_MIB, "MiB/s"),
    "bytes_per_s": (BYTES_PER_MIB, "MiB/s"),
    "ratio": (0.01, "%"),
}
#: Units of an axis that may choose, the smallest first.
FITTING_UNITS = {
    "ns": ((1, "ns"), (1_000, "µs"), (NS_PER_MS, "ms"), (1_000_000_000, "s")),
    "bytes": ((1 << 10, "KiB"), (BYTES_PER_MIB, "MiB"), (1 << 30, "GiB")),
    "bytes/s": ((1 << 10, "KiB/s"), (BYTES_PER_MIB, "MiB/s"), (1 << 30, "GiB/s")),
}
#: From how many powers of ten on an axis names fewer numbers.
WIDE_DECADES = 2.2
VAST_DECADES = 4
#: An axis with fewer numbers gets finer steps.
TICKS_MIN = 3
FINE_STEPS = (1, 1.5, 2, 3, 4, 5, 7)
#: Vega-Lite specifications are JSON objects of any depth.
Spec = dict[str, Any]
Values = list[dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a report."""

    name: str
    """Fit for a file name and an element id."""
    bench: str
    """Which section it belongs to; empty for the run as a whole."""
    title: str
    caption: str
    spec: Spec
    is_wide: bool = False
    is_small: bool = False
    """One of many alike, which stand side by side."""


def fitting_unit(unit: str, values: Iterable[float]) -> tuple[float, str]:
    """Divisor and label of a logarithmic axis: those of the middle of what is on it."""
    known = [value for value in values if value > 0]
    units = FITTING_UNITS.get(unit)
    if units is None or not known:
        return AXIS_UNITS.get(unit, (1, unit))
    middle = math.sqrt(min(known) * max(known))
    return max((one for one in units if one[0] <= middle), default=units[0])


def log_ticks(values: Iterable[object]) -> list[float]:
    """Few round numbers that cover the values on a logarithmic axis: 1, 2, 5, 10..."""
    known = [float(value) for value in values if isinstance(value, int | float) and value > 0]
    if not known:
        return []
    low, high = math.log10(min(known)), math.log10(max(known))
    decades = high - low
    steps: tuple[float, ...] = (1, 2, 5)
    if decades >= WIDE_DECADES:
        steps = (1, 3) if decades < VAST_DECADES else (1,)
    ticks = _ticks(low, high, steps)
    return ticks if len(ticks) >= TICKS_MIN else _ticks(low, high, FINE_STEPS)


def _ticks(low: float, high: float, steps: tuple[float, ...]) -> list[float]:
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in ticks if 10**low * 0.8 <= tick <= 10**high * 1.25]


def driver_names(summary: RunSummary) -> list[str]:
    """All drivers of the run in their order, the floor last."""
    return [*(driver.name for driver in summary.drivers), FLOOR]


def colour(summary: RunSummary, values: Values, *, has_legend: bool = True) -> alt.Color:
    """Colour by driver, with the run's drivers that have values."""
    names = _present(summary, values)
    inks = inks_of(tuple(driver_names(summary)))
    scale = alt.Scale(domain=names, range=[inks[name].colour for name in names])
    if not has_legend:
        return alt.Color("driver:N", scale=scale, legend=None)
    return alt.Color("driver:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def shape(summary: RunSummary, values: Values, *, has_legend: bool = True) -> alt.Shape:
    """Sign by driver."""
    names = _present(summary, values)
    inks = inks_of(tuple(driver_names(summary)))
    scale = alt.Scale(domain=names, range=[inks[name].shape for name in names])
    if not has_legend:
        return alt.Shape("driver:N", scale=scale, legend=None)
    return alt.Shape("driver:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def dash(summary: RunSummary, values: Values) -> alt.StrokeDash:
    """Dashes by driver: only the floor has them."""
    names = _present(summary, values)
    inks = inks_of(tuple(driver_names(summary)))
    dashes = [list(inks[name].dash) or [1, 0] for name in names]
    return alt.StrokeDash(
        "driver:N",
        scale=alt.Scale(domain=names, range=dashes),
        legend=alt.Legend(title=None, orient="top"),
    )


def legend() -> alt.Parameter:
    """Selecting a driver in the legend."""
    return alt.selection_point(name="chosen", fields=["driver"], bind="legend")


def highlight() -> dict[str, object]:
    """Drivers that are not selected fade."""
    return {"condition": {"param": "chosen", "value": 1}, "value": 0.15}


def finish(chart: alt.Chart | alt.LayerChart | alt.FacetChart, *, height: int) -> Spec:
    """The specification without what Altair adds for its own display."""
    return {
        name: part
        for name, part in chart.properties(width="container", height=height).to_dict().items()
        if name not in {"config", "usermeta"}
    }


def _present(summary: RunSummary, values: Values) -> list[str]:
    found = {str(value["driver"]) for value in values}
    return [name for name in driver_names(summary) if name in found]
