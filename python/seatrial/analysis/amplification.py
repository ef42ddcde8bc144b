"""How many times as long a storm takes beside many other sandboxes as beside the fewest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.model.metric import is_foreign_name
from seatrial.model.plan import Point
from seatrial.model.summary import FLOOR, Cell, Statistic, Verdict
from seatrial.stats.paired import paired_ratio_interval
from seatrial.stats.ratio import median_ratio_interval
from seatrial.stats.unpaired import mean_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.analysis.evidence import Floats, Series
    from seatrial.model.estimate import Estimate, NotAvailable

#: The axis that counts the sandboxes beside the measured ones.
AXIS: Final = "background"
#: What is amplified, and what the ratio is called.
AMPLIFIED: Final[Mapping[str, str]] = {
    "start_makespan_ns": "start_amplification_ratio",
    "rund.makespan_mean": "rund.amplification",
}


def amplification_cells(series: Iterable[Series], *, confidence: float, seed: int) -> list[Cell]:
    """Makespan at each background over that at the smallest one; other axes and driver held.

    The ratio is of medians, by blocks (METHODOLOGY 7.3); that of another tool's means is of means,
    whose rounds make no pairs. Drivers with one background have none.
    """
    groups: dict[tuple[str, str], list[Series]] = {}
    for one in series:
        if one.metric in AMPLIFIED and AXIS in one.point.values:
            held = {name: value for name, value in one.point.values.items() if name != AXIS}
            groups.setdefault((one.driver, Point(bench=one.bench, values=held).key), []).append(one)
    cells: list[Cell] = []
    for (driver, _), members in groups.items():
        ordered = sorted(members, key=lambda one: float(one.point.values[AXIS]))
        if driver != FLOOR:
            cells += [
                _cell(one, ordered[0], confidence=confidence, seed=seed) for one in ordered[1:]
            ]
    return cells


def _cell(one: Series, fewest: Series, *, confidence: float, seed: int) -> Cell:
    is_foreign = is_foreign_name(one.metric)
    estimate = (
        mean_ratio_interval(_means(one), _means(fewest), confidence=confidence)
        if is_foreign
        else paired_ratio(one.blocks, fewest.blocks, confidence=confidence, seed=seed)
    )
    return Cell(
        bench=one.bench,
        point=one.point,
        driver=one.driver,
        metric=AMPLIFIED[one.metric],
        statistic=Statistic.MEAN if is_foreign else Statistic.P50,
        estimate=estimate,
        ratio=None,
        verdict=Verdict.NOT_JUDGED,
        n=int(one.pooled.size),
        blocks_count=len(one.blocks),
    )


def _means(series: Series) -> list[float]:
    return [float(values.mean()) for values in series.blocks.values()]


def paired_ratio(
    ours: Mapping[int, Floats], theirs: Mapping[int, Floats], *, confidence: float, seed: int
) -> Estimate | NotAvailable:
    """Ratio of two drivers, or of one in two conditions, over the blocks that have both."""
    shared = [block for block in ours if block in theirs]
    if all(len(ours[block]) == len(theirs[block]) == 1 for block in shared):
        return paired_ratio_interval(
            [float(ours[block][0]) for block in shared],
            [float(theirs[block][0]) for block in shared],
            confidence=confidence,
        )
    return median_ratio_interval(
        [ours[block] for block in shared],
        [theirs[block] for block in shared],
        confidence=confidence,
        seed=seed,
    )
