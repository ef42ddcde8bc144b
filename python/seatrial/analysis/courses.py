"""How each load went over time, in few points, for figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.model.summary import Course, CoursePoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.model.plan import TrialSpec

NS_PER_S: Final = 1_000_000_000
#: The bench asks for about sixty; whatever made more of them, a figure shows no more than this.
POINTS_MAX: Final = 120


def course_of(spec: TrialSpec, tables: Mapping[str, pl.DataFrame]) -> Course | None:
    """The course of the one load of a trial through its measure phase.

    None for a trial without intervals, or with those of several agents, which have no course
    together.
    """
    intervals, loads = tables.get("intervals"), tables.get("loads")
    if intervals is None or loads is None or loads.height != 1:
        return None
    if "agent" in intervals.columns and intervals["agent"].is_not_null().any():
        return None
    load = loads.row(0, named=True)
    inside = intervals.filter(
        (intervals["started_at_ns"] >= load["measure_start_ns"])
        & (intervals["ended_at_ns"] <= load["measure_end_ns"])
    ).sort("started_at_ns")
    if inside.height == 0:
        return None
    stride = -(-inside.height // POINTS_MAX)
    return Course(
        bench=spec.point.bench,
        point=spec.point,
        driver=spec.driver,
        trial_id=spec.trial_id,
        points=tuple(
            CoursePoint(
                since_start_ns=row["ended_at_ns"] - load["measure_start_ns"],
                replies_rps=row["ok_count"]
                * NS_PER_S
                / (row["ended_at_ns"] - row["started_at_ns"]),
                response_ns_p99=row["response_ns_p99"],
            )
            for row in inside.gather_every(stride).iter_rows(named=True)
        ),
    )
