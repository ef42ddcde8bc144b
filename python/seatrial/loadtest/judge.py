"""The evidence for the verdict on a load, taken from its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from seatrial.benches.backlogs import read_backlogs
from seatrial.benches.sends import check_sends, is_service_bent, planned_sends
from seatrial.loadtest.examine import PHASE_MEASURE, counts_of, response_intervals
from seatrial.stats.arrivals import ArrivalCheck, RateCheck, check_rate
from seatrial.stats.independence import check_independence
from seatrial.stats.stationarity import check_stationarity_of_intervals
from seatrial.stats.verdict import LoadEvidence

if TYPE_CHECKING:
    import numpy as np

    from seatrial.agents.outcome import LoadOutcome, Tally
    from seatrial.loadgen import Histogram
    from seatrial.loadtest.settings import LoadTestSettings
    from seatrial.stats.converge import Decision

OUTCOME_OK: Final = 0
#: Refused, reset, protocol error: without an end of their own, such requests wait for nothing.
LOST_OUTCOMES: Final = (2, 3, 4)
NS_PER_S: Final = 1_000_000_000
#: As many values as the test for dependence looks at.
SERIES_MAX: Final = 200_000


def evidence_of(
    outcome: LoadOutcome, settings: LoadTestSettings, decision: Decision | None
) -> LoadEvidence:
    """Returns what is known of a load for and against its numbers."""
    measured = outcome.records.filter(pl.col("phase") == PHASE_MEASURE)
    backlogs = None
    if settings.is_open:
        backlogs = read_backlogs(
            outcome.intervals,
            measure_start_ns=outcome.measure_start_ns,
            measure_end_ns=outcome.measure_end_ns,
        )
    response = outcome.histograms["response"]
    pacing = outcome.histograms["pacing_lag"]
    is_open = settings.is_open
    return LoadEvidence(
        planned_count=outcome.measured.intended_count,
        sent_count=outcome.measured.sent_count,
        answered_count=_answered(outcome.measured),
        blocked_count=outcome.measured.unsent_count,
        timeout_ns=settings.request_timeout_ns,
        backlog_before_count=None if backlogs is None else backlogs.middle_count,
        backlog_after_count=None if backlogs is None else backlogs.end_count,
        offered_between_count=None if backlogs is None else backlogs.offered_count,
        mean_gap_ns=_mean_gap_ns(outcome) if is_open else None,
        pacing_lag_ns=_percentiles_ns(pacing) if is_open else {},
        response_time_ns=_percentiles_ns(response),
        arrivals=_arrivals(measured, outcome, settings) if is_open else None,
        rate=_rate(outcome, settings) if is_open else None,
        independence=check_independence(_response_series(measured)),
        stationarity=(
            check_stationarity_of_intervals(response_intervals(outcome))
            if settings.pattern == "fixed"
            else None
        ),
        convergence=decision,
    )


def _percentiles_ns(histogram: Histogram) -> dict[str, float]:
    """The figures that the tables of times have, none of an empty histogram."""
    if not histogram.count:
        return {}
    counts = counts_of(histogram)
    return {name: counts.quantile(share) for name, share in {"p50": 0.5, "p99": 0.99}.items()}


def _answered(measured: Tally) -> int:
    """Requests that came to an end by themselves.

    A time-out is no answer. What is under way when the phase ends is no sign of anything, unless it
    becomes more and more, which the backlogs tell.
    """
    return measured.sent_count - measured.timeout_count


def _mean_gap_ns(outcome: LoadOutcome) -> float | None:
    count = outcome.measured.intended_count
    length_ns = outcome.measure_end_ns - outcome.measure_start_ns
    return length_ns / count if count else None


def _response_series(measured: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Response times of correct replies in the order of their due times."""
    correct = measured.filter(pl.col("outcome") == OUTCOME_OK).sort("intended_at_ns")
    series = (correct["done_at_ns"] - correct["intended_at_ns"]).head(SERIES_MAX)
    return series.cast(pl.Float64).to_numpy()


def _arrivals(
    measured: pl.DataFrame, outcome: LoadOutcome, settings: LoadTestSettings
) -> ArrivalCheck | None:
    """Tests the instants at which requests left; a sample of them has no gaps to test.

    Neither have requests that waited for a free place: a slow service bends those gaps.
    """
    if outcome.records_stride > 1 or not settings.is_open:
        return None
    waited_count = outcome.histograms["queue"].count + outcome.measured.unsent_count
    if is_service_bent(waited_count=waited_count, intended_count=outcome.measured.intended_count):
        return None
    return check_sends(
        measured,
        law=settings.arrival,
        rate_rps=settings.rate_rps,
        pattern=settings.pattern,
        started_at_ns=outcome.started_at_ns,
    )


def _rate(outcome: LoadOutcome, settings: LoadTestSettings) -> RateCheck | None:
    """Compares what was sent with what the process has due, where its scatter is known."""
    start_ns = outcome.measure_start_ns - outcome.started_at_ns
    end_ns = outcome.measure_end_ns - outcome.started_at_ns
    planned = planned_sends(
        law=settings.arrival,
        rate_rps=settings.rate_rps,
        pattern=settings.pattern,
        start_ns=start_ns,
        end_ns=end_ns,
        asked_ns=settings.budget_ns if settings.precision else settings.duration_ns,
    )
    if planned is None:
        return None
    return check_rate(
        planned_rps=planned.count * NS_PER_S / (end_ns - start_ns),
        sent_count=outcome.measured.sent_count + outcome.measured.unsent_count,
        duration_ns=end_ns - start_ns,
        dispersion=planned.dispersion,
    )
