"""Numbers of another run, imported or not, as lines to stand beside those of this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.model.estimate import Estimate
from seatrial.model.plan import Point
from seatrial.model.summary import FLOOR, Reference, ReferencePoint, Statistic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.model.summary import Cell, RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Which metric of ours another tool's stands beside, and how they differ."""

    metric: str
    note: str


#: Names with a dot are other tools' own definitions (METHODOLOGY 11).
BESIDE: Final[Mapping[str, Beside]] = {
    "rund.makespan_mean": Beside(
        metric="start_makespan_ns",
        note="mean over rounds, from the first client's begin until the last one saw its pod "
        "ready, process starts and polls included",
    ),
    "rund.latency": Beside(
        metric="start_first_reply_ns",
        note="from a client's begin until it saw its pod ready, process starts and polls included",
    ),
    "rund.host_cpu_mean": Beside(
        metric="start_host_cpu_ns", note="CPU time of the whole host for each sandbox of a round"
    ),
    "rund.memory_pss_mean": Beside(
        metric="memory_pss_bytes", note="one reading, of processes whose command matched a pattern"
    ),
}
LOCATIONS: Final = frozenset({Statistic.P50, Statistic.MEAN, Statistic.PROPORTION})


def references_of(other: RunSummary) -> tuple[Reference, ...]:
    """Returns every metric of another run along every numeric axis with two marks or more.

    A run of ours gives its own metrics, an imported one those that stand beside a metric of ours.
    """
    marks: dict[tuple[str, str, str, str], dict[float, Cell]] = {}
    for cell in other.cells:
        if cell.statistic not in LOCATIONS or cell.driver == FLOOR:
            continue
        for axis in _numeric(cell.point):
            held = Point(bench=cell.bench, values=_without(cell.point, axis))
            key = (cell.driver, cell.metric, axis, held.key)
            marks.setdefault(key, {})[float(cell.point.values[axis])] = cell
    found = (
        _reference(other, cells, driver=key[0], name=key[1], axis=key[2])
        for key, cells in marks.items()
    )
    return tuple(one for one in found if one is not None)


def _numeric(point: Point) -> Iterable[str]:
    for name, value in point.values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name


def _without(point: Point, axis: str) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in point.values.items() if name != axis}


def _reference(
    other: RunSummary, cells: Mapping[float, Cell], *, driver: str, name: str, axis: str
) -> Reference | None:
    is_foreign = other.metrics[name].is_foreign
    beside = BESIDE.get(name)
    if is_foreign and beside is None:
        return None
    points = [mark for x, cell in sorted(cells.items()) if (mark := _mark(x, cell)) is not None]
    if len(points) < 2:  # noqa: PLR2004 - one mark is no line
        return None
    first = next(iter(cells.values()))
    return Reference(
        source=f"{other.name}: {driver}",
        metric=beside.metric if beside is not None else name,
        foreign_metric=name,
        axis=axis,
        held=_without(first.point, axis),
        points=tuple(points),
        note=beside.note if beside is not None else "",
    )


def _mark(x: float, cell: Cell) -> ReferencePoint | None:
    estimate = cell.estimate
    if isinstance(estimate, Estimate):
        return ReferencePoint(x=x, point=estimate.point, low=estimate.low, high=estimate.high)
    if estimate.point is None:
        return None
    return ReferencePoint(x=x, point=estimate.point, low=None, high=None)
