"""Rate and p99 over time: from the intervals of a load to lines on the page."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import polars as pl
import pytest

from seatrial.analysis.courses import POINTS_MAX, course_of
from seatrial.benches.load_books import arrivals_of, interval_rows, load_row
from seatrial.benches.load_judge import derive_load, judge_load
from seatrial.loadgen import LoadRequest, run_load
from seatrial.model.plan import Point, TrialSpec
from seatrial.report.courses import load_courses
from tests.support.runs import small_run, summary_of

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.loadgen import LoadResult

S = 1_000_000_000
OPEN = Point(bench="load", values={"mode": "open", "connections": 4, "rate_rps": 1000.0})
SPEC = TrialSpec(trial_id="t0001", index=0, block=0, driver="fake", point=OPEN, seed=1)
FAST = "fake://?workers=1&service=constant:100us"
REQUEST = LoadRequest(
    targets=(FAST,),
    arrival="lognormal:cv=2",
    rate_rps=1000.0,
    connections=64,
    warm_up_ns=S // 2,
    measure_ns=2 * S,
    seed=3,
)


def kept(request: LoadRequest, result: LoadResult) -> dict[str, pl.DataFrame]:
    """The tables that the bench keeps of a load."""
    row = {**load_row(request, result), "sandbox_cpu_ns": None}
    return {
        "requests": pl.DataFrame(result),
        "loads": pl.DataFrame([row], infer_schema_length=None),
        "intervals": pl.DataFrame(list(interval_rows(result)), infer_schema_length=None),
    }


def judged(request: LoadRequest) -> list[str]:
    """The codes of all findings about a load."""
    found = judge_load(kept(request, run_load(request)), OPEN)
    return [finding.code for finding in found]


def test_a_good_load_keeps_its_law_and_has_only_remarks() -> None:
    """The sends of an engine that is never late follow whatever law was asked for."""
    result = run_load(REQUEST)
    check = arrivals_of(REQUEST, result)
    assert check is not None
    assert check.is_kept
    assert check.n == result.measured.sent_count - 1
    assert set(judged(REQUEST)) <= {"not-independent"}


def test_sends_of_another_law_are_found_out() -> None:
    """The same sends, held against a law that they do not follow, make the generator at fault."""
    result = run_load(REQUEST)
    check = arrivals_of(dataclasses.replace(REQUEST, arrival="poisson"), result)
    assert check is not None
    assert check.is_kept is False
    wrong = dataclasses.replace(REQUEST, arrival="poisson")
    codes = [finding.code for finding in judge_load(kept(wrong, result), OPEN)]
    assert "generator-bound" in codes


@pytest.mark.parametrize("pattern", ["fixed", "spike:at=1s,for=60s,factor=3"])
def test_a_rate_is_held_against_the_plan_of_any_pattern(pattern: str) -> None:
    """What is due is computed beside the load; a generator that leaves requests out is told."""
    request = dataclasses.replace(REQUEST, arrival="fixed", pattern=pattern)
    frames = kept(request, run_load(request))
    assert "generator-bound" not in [one.code for one in judge_load(frames, OPEN)]
    loads = frames["loads"]
    assert loads["planned_count"][0] == pytest.approx(loads["measured_sent_count"][0], abs=1)
    assert loads["planned_dispersion"][0] == 0
    short = loads.with_columns(pl.col("planned_count") * 1.02)
    found = judge_load({**frames, "loads": short}, OPEN)
    assert "were planned" in next(one for one in found if one.code == "generator-bound").message


def test_a_rate_is_held_against_a_trace(tmp_path: Path) -> None:
    """The bench keeps how many instants the trace has, since the file may be gone later."""
    trace = tmp_path / "trace"
    trace.write_text("".join(f"{at}\n" for at in range(0, 3 * S, 5_000_000)))
    request = dataclasses.replace(REQUEST, arrival=f"trace:{trace}", rate_rps=None)
    frames = kept(request, run_load(request))
    trace.unlink()
    loads = frames["loads"]
    assert (loads["planned_count"][0], loads["planned_dispersion"][0]) == (400, 0)
    assert "generator-bound" not in [one.code for one in judge_load(frames, OPEN)]
    fewer = loads.with_columns(measured_sent_count=pl.lit(380))
    found = judge_load({**frames, "loads": fewer}, OPEN)
    assert any("190 /s were sent where 200 /s were planned" in one.message for one in found)


def test_runs_of_before_are_judged_by_their_constant_rate() -> None:
    """They have no count of what was due, and no trace is judged without one."""
    request = dataclasses.replace(REQUEST, arrival="fixed")
    frames = kept(request, run_load(request))
    loads = frames["loads"].drop("planned_count", "planned_dispersion")
    fewer = loads.with_columns(pl.col("measured_sent_count") - 100)
    found = judge_load({**frames, "loads": fewer}, OPEN)
    assert any("were sent where 1.00 k/s were planned" in one.message for one in found)
    traced = fewer.with_columns(arrival=pl.lit("trace:/gone"))
    found = judge_load({**frames, "loads": traced}, OPEN)
    assert not any("were planned" in one.message for one in found)


@pytest.mark.parametrize(
    "change",
    [
        {"arrival": "closed", "rate_rps": None},
        {"connections": 1, "targets": ("fake://?workers=1&service=constant:900us",)},
        {"records_max": 64},
    ],
)
def test_nothing_is_said_of_arrivals_that_cannot_be_seen(change: dict[str, object]) -> None:
    """A closed loop has none, waiting bends them, and a sample has no gaps."""
    request = dataclasses.replace(REQUEST, **change)  # type: ignore[arg-type]  # names of fields
    assert arrivals_of(request, run_load(request)) is None


def test_waits_of_the_warm_up_bend_no_measured_sends() -> None:
    """A service that stood still before the measure phase says nothing about what left in it."""
    stalled = f"{FAST}&stall_at=100ms&stall=200ms"
    request = dataclasses.replace(REQUEST, targets=(stalled,))
    result = run_load(request)
    assert result.queued_count > 0.01 * result.intended_count
    check = arrivals_of(request, result)
    assert check is not None
    assert check.is_kept


def test_a_fixed_schedule_is_held_against_its_instants() -> None:
    """Its statistic is a distance in gaps, which is 0 on a modelled clock."""
    request = dataclasses.replace(REQUEST, arrival="fixed")
    check = arrivals_of(request, run_load(request))
    assert check is not None
    assert (check.law, check.is_kept, check.statistic) == ("fixed", True, 0.0)


def test_a_service_above_capacity_is_saturated() -> None:
    """Twice the capacity: the backlog grows, and so do the response times."""
    codes = judged(
        dataclasses.replace(REQUEST, targets=("fake://?workers=1&service=constant:2ms",))
    )
    assert "saturated" in codes
    assert "not-stationary" in codes
    assert "generator-bound" not in codes


def test_a_rate_that_changes_by_plan_is_not_held_against_the_service() -> None:
    """Response times follow a ramp, and that is no news."""
    request = dataclasses.replace(
        REQUEST, arrival="poisson", rate_rps=None, pattern="ramp:from=100,to=6000,over=2s"
    )
    assert "not-stationary" not in judged(request)


def test_intervals_tell_every_reply_once() -> None:
    """Positions count from the begin of the measure phase; warm-up lies below 0."""
    result = run_load(REQUEST)
    rows = list(interval_rows(result))
    assert pl.DataFrame(rows)["ok_count"].sum() == result.ok_count
    first = next(row for row in rows if row["position"] == 0)
    assert first["started_at_ns"] == result.measure_start_ns
    assert rows[0]["position"] == -5
    course = course_of(SPEC, kept(REQUEST, result))
    assert course is not None
    assert len(course.points) == 20
    assert course.points[-1].since_start_ns == 2 * S
    replies = sum(point.replies_rps for point in course.points) / 10
    assert replies == pytest.approx(result.achieved_count)


def test_a_course_is_bounded_and_of_one_load_only() -> None:
    """Many intervals are thinned; agents have no course together."""
    fine = dataclasses.replace(REQUEST, interval_ns=1_000_000)
    tables = kept(fine, run_load(fine))
    course = course_of(SPEC, tables)
    assert course is not None
    assert len(course.points) <= POINTS_MAX
    assert course_of(SPEC, {**tables, "loads": pl.concat([tables["loads"]] * 2)}) is None
    assert course_of(SPEC, {"loads": tables["loads"]}) is None


def test_time_on_the_wire_is_told_where_both_stamps_are() -> None:
    """Kernel stamp to kernel stamp, of correct replies of the measure phase."""
    tables = kept(REQUEST, run_load(REQUEST))
    assert "wire_time_ns" not in {one.metric for one in derive_load(tables, OPEN)}
    stamped = tables["requests"].with_columns(
        pl.col("sent_at_ns").alias("kernel_sent_at_ns"),
        (pl.col("sent_at_ns") + 70_000).alias("kernel_received_at_ns"),
    )
    found = {one.metric: one.values for one in derive_load({**tables, "requests": stamped}, OPEN)}
    assert set(found["wire_time_ns"]) == {70_000.0}
    assert len(found["wire_time_ns"]) == len(found["response_time_ns"])


def test_the_page_has_a_line_a_trial(tmp_path: Path) -> None:
    """Rate and p99, a figure each for every point of the bench."""
    summary = summary_of(small_run(tmp_path))
    course = course_of(SPEC, kept(REQUEST, run_load(REQUEST)))
    assert course is not None
    driver = summary.drivers[0].name
    courses = tuple(
        dataclasses.replace(course, trial_id=name, driver=driver) for name in ("t1", "t2")
    )
    rate, p99 = load_courses(dataclasses.replace(summary, courses=courses))
    assert (rate.name, p99.name) == ("load-course-rate-1", "load-course-p99-1")
    (values,) = rate.spec["datasets"].values()
    assert {value["trial"] for value in values} == {"t1", "t2"}
    assert len(values) == 2 * len(course.points)
    assert load_courses(dataclasses.replace(summary, courses=())) == []
