"""What is kept of a load beside its records: counters, what became of its arrivals, its course."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from seatrial.benches.backlogs import read_backlogs
from seatrial.benches.sends import check_sends, is_service_bent, planned_sends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.benches.base import Row
    from seatrial.loadgen import LoadRequest, LoadResult
    from seatrial.stats.arrivals import ArrivalCheck

CLOSED: Final = "closed"
PHASE_MEASURE: Final = 1
APPLICATION_ERROR: Final = 5


def load_row(request: LoadRequest, result: LoadResult) -> Row:
    """Returns the row of the table `loads`, but for what only the sandbox knows."""
    lag, stamps = result.pacing_lag_histogram, result.timestamps
    return {
        "started_at_ns": result.started_at_ns,
        "ended_at_ns": result.ended_at_ns,
        "threads_count": request.threads,
        "measure_start_ns": result.measure_start_ns,
        "measure_end_ns": result.measure_end_ns,
        "intended_count": result.intended_count,
        "sent_count": result.sent_count,
        "ok_count": result.ok_count,
        "timeout_count": result.timeout_count,
        "error_count": result.error_count,
        "records_dropped_count": 0,
        "records_stride": result.records_stride,
        "measured_intended_count": result.measured.intended_count,
        "measured_ok_count": result.measured.ok_count,
        "achieved_count": result.achieved_count,
        "counted_until_ns": result.counted_until_ns,
        **_backlogs(result),
        "measured_sent_count": result.measured.sent_count,
        "measured_timeout_count": result.measured.timeout_count,
        "measured_unsent_count": result.measured.unsent_count,
        "queued_count": result.queued_count,
        "arrival": None if request.arrival == CLOSED else request.arrival,
        "pattern": None if request.arrival == CLOSED else request.pattern,
        **_of_arrivals(arrivals_of(request, result)),
        **_of_plan(request, result),
        "late_reply_count": result.late_reply_count,
        "application_error_count": sum(
            count for outcome, _, count in result.failures if outcome == APPLICATION_ERROR
        ),
        "timestamps": stamps.used,
        "timestamps_missing_count": stamps.missing_count,
        "timestamps_uncertainty_ns": stamps.clock_uncertainty_ns,
        "wait": result.wait,
        "guard_ns": result.guard_ns,
        "cpus_seen": " ".join(str(cpu) for cpu in result.cpus_seen),
        "generator_user_ns": result.generator_user_ns,
        "generator_system_ns": result.generator_system_ns,
        "offered_rps": request.rate_rps,
        "pacing_lag_ns_p50": _float(lag.quantile(0.5)),
        "pacing_lag_ns_p99": _float(lag.quantile(0.99)),
    }


def interval_rows(result: LoadResult) -> Iterator[Row]:
    """Gives the rows of the table `intervals`, of all phases in the order of time."""
    first = sum(one.end_ns <= result.measure_start_ns for one in result.intervals)
    for number, one in enumerate(result.intervals):
        yield {
            "position": number - first,
            "started_at_ns": one.start_ns,
            "ended_at_ns": one.end_ns,
            "intended_count": one.intended_count,
            "sent_count": one.sent_count,
            "ok_count": one.ok_count,
            "failed_count": one.failed_count,
            "sent_bytes": one.sent_bytes,
            "received_bytes": one.received_bytes,
            "response_ns_p50": _float(one.response_histogram.quantile(0.5)),
            "response_ns_p99": _float(one.response_histogram.quantile(0.99)),
        }


def _backlogs(result: LoadResult) -> dict[str, int | None]:
    found = read_backlogs(
        result.intervals,
        measure_start_ns=result.measure_start_ns,
        measure_end_ns=result.measure_end_ns,
    )
    return {
        "backlog_middle_count": None if found is None else found.middle_count,
        "backlog_end_count": None if found is None else found.end_count,
        "offered_late_count": None if found is None else found.offered_count,
    }


def arrivals_of(request: LoadRequest, result: LoadResult) -> ArrivalCheck | None:
    """Returns whether the measured requests left as their process has it.

    None for a closed loop; for a sample of the requests, which has no gaps to look at; and where
    measured requests waited for free places.
    """
    if request.arrival == CLOSED or result.records_stride != 1:
        return None
    measured = result.measured
    waited_count = result.queue_histogram.count + measured.unsent_count
    if is_service_bent(waited_count=waited_count, intended_count=measured.intended_count):
        return None
    return check_sends(
        pl.DataFrame(result).filter(pl.col("phase") == PHASE_MEASURE),
        law=request.arrival,
        rate_rps=request.rate_rps,
        pattern=request.pattern,
        started_at_ns=result.started_at_ns,
    )


def _of_arrivals(check: ArrivalCheck | None) -> Row:
    if check is None:
        return {}
    return {
        "arrival_gaps_count": check.n,
        "arrival_statistic": check.statistic,
        "arrival_distance": check.distance,
        "arrivals_are_kept": check.is_kept,
    }


def _of_plan(request: LoadRequest, result: LoadResult) -> Row:
    if request.arrival == CLOSED:
        return {}
    planned = planned_sends(
        law=request.arrival,
        rate_rps=request.rate_rps,
        pattern=request.pattern,
        start_ns=result.measure_start_ns - result.started_at_ns,
        end_ns=result.measure_end_ns - result.started_at_ns,
        asked_ns=request.measure_ns,
    )
    if planned is None:
        return {}
    return {"planned_count": planned.count, "planned_dispersion": planned.dispersion}


def _float(value_ns: int | None) -> float | None:
    return None if value_ns is None else float(value_ns)
