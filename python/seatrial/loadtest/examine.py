"""From the outcome of a load to estimates: percentiles with intervals that know of dependence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from seatrial.loadtest.result import Quantile, TargetSummary, TimeSummary
from seatrial.stats.counts import Counts
from seatrial.stats.dependent import intervals_quantile_interval, series_quantile_interval
from seatrial.stats.quantile import counts_quantile_interval

if TYPE_CHECKING:
    from seatrial.agents.outcome import IntervalOutcome, LoadOutcome, TargetOutcome
    from seatrial.loadgen import Histogram
    from seatrial.model.estimate import Estimate, NotAvailable
    from seatrial.stats.counts import Floats

PHASE_MEASURE: Final = 1
OUTCOME_OK: Final = 0
NS_PER_S: Final = 1_000_000_000
#: Percentiles that are told, by name.
QUANTILES: Final = {
    "p50": 0.5,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p99.9": 0.999,
    "p99.99": 0.9999,
}


def counts_of(histogram: Histogram) -> Counts:
    """Returns a histogram as statistics wants it: values in ns and how often each occurred."""
    values, counts = histogram.buckets()
    return Counts.of_pairs(np.asarray(values, dtype=np.float64), np.asarray(counts))


def measured_intervals(outcome: LoadOutcome) -> list[IntervalOutcome]:
    """Returns the successive stretches of the measure phase."""
    return [
        interval
        for interval in outcome.intervals
        if interval.end_ns > outcome.measure_start_ns and interval.start_ns < outcome.measure_end_ns
    ]


def response_intervals(outcome: LoadOutcome) -> list[Counts]:
    """Returns the response times of successive stretches of the measure phase."""
    return [counts_of(interval.response) for interval in measured_intervals(outcome)]


def response_series(outcome: LoadOutcome) -> Floats:
    """Returns the response times of the kept correct replies, in the order of their due times."""
    correct = outcome.records.filter(
        (outcome.records["phase"] == PHASE_MEASURE) & (outcome.records["outcome"] == OUTCOME_OK)
    ).sort("intended_at_ns")
    return (correct["done_at_ns"] - correct["intended_at_ns"]).cast(float).to_numpy()


def response_quantile(
    outcome: LoadOutcome, q: float, *, confidence: float = 0.95
) -> Estimate | NotAvailable:
    """Returns one percentile of the response time, its interval widened where replies depend."""
    return intervals_quantile_interval(
        response_intervals(outcome),
        q,
        confidence=confidence,
        unit="ns",
        pooled=counts_of(outcome.histograms["response"]),
    )


def sample_quantile(histogram: Histogram, share: float) -> int | None:
    """Returns what a sample has at a percentile, if at least one of its values lies beyond."""
    # A share such as 0.9999 is not exact in binary; the last digits must not decide.
    beyond = round(histogram.count * (1 - share), 6)
    return histogram.quantile(share) if beyond >= 1 else None


def summarise_times(outcome: LoadOutcome, *, is_open: bool) -> tuple[TimeSummary, ...]:
    """Returns the kinds of time that were measured, the headline first.

    A closed loop has no response time: a request there is due when its place is free, so that its
    response and service times are the same, and a slow server slows the load down.
    """
    response = summarise_response(outcome, kind="response" if is_open else "service")
    others = ["service", "send_lag", "queue"] if is_open else []
    rest = [*others, "pacing_lag", "connect", "wire", "wake"]
    return (response, *(_summary(kind, outcome) for kind in rest if outcome.histograms[kind].count))


def summarise_response(outcome: LoadOutcome, *, kind: str) -> TimeSummary:
    """Returns the headline: every request counts, dependence from stretch to stretch included."""
    histogram = outcome.histograms["response"]
    pooled, stretches = counts_of(histogram), response_intervals(outcome)
    quantiles = tuple(
        Quantile(
            name=name,
            share=share,
            value=intervals_quantile_interval(stretches, share, unit="ns", pooled=pooled),
            sample_ns=sample_quantile(histogram, share),
        )
        for name, share in QUANTILES.items()
    )
    return _time(kind, histogram, quantiles)


def _summary(kind: str, outcome: LoadOutcome) -> TimeSummary:
    histogram = outcome.histograms[kind]
    series = _series(kind, outcome)
    quantiles = []
    for name, share in QUANTILES.items():
        if series is None:
            value = counts_quantile_interval(counts_of(histogram), share, unit="ns")
        else:
            value = series_quantile_interval(series, share, unit="ns")
        sample_ns = sample_quantile(histogram, share)
        quantiles.append(Quantile(name=name, share=share, value=value, sample_ns=sample_ns))
    return _time(kind, histogram, tuple(quantiles))


def _series(kind: str, outcome: LoadOutcome) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """Values in the order of due times, for kinds that the kept requests tell."""
    spans = {
        "service": ("done_at_ns", "sent_at_ns"),
        "send_lag": ("sent_at_ns", "intended_at_ns"),
    }
    if kind not in spans:
        return None
    end, start = spans[kind]
    records = outcome.records.filter(outcome.records["phase"] == PHASE_MEASURE)
    if kind == "service":
        records = records.filter(records["outcome"] == OUTCOME_OK)
    return (records[end] - records[start]).drop_nulls().cast(float).to_numpy()


def _time(kind: str, histogram: Histogram, quantiles: tuple[Quantile, ...]) -> TimeSummary:
    return TimeSummary(
        kind=kind,
        count=histogram.count,
        mean_ns=histogram.mean_ns,
        min_ns=histogram.min_ns,
        max_ns=histogram.max_ns,
        quantiles=quantiles,
    )


def summarise_targets(outcome: LoadOutcome) -> tuple[TargetSummary, ...]:
    """Returns what each server answered, where there are several."""
    length_ns = _counted_ns(outcome)
    return tuple(_target(target, length_ns) for target in outcome.targets)


def _target(target: TargetOutcome, length_ns: int) -> TargetSummary:
    pooled = counts_of(target.response)
    quantiles = tuple(
        Quantile(
            name=name,
            share=share,
            value=counts_quantile_interval(pooled, share, unit="ns"),
            sample_ns=sample_quantile(target.response, share),
        )
        for name, share in QUANTILES.items()
    )
    return TargetSummary(
        target=target.target,
        ok_count=target.measured.ok_count,
        failed_count=target.measured.failed_count,
        achieved_rps=target.achieved_count * NS_PER_S / length_ns,
        response=_time("response", target.response, quantiles),
    )


def offered_rps(outcome: LoadOutcome) -> float:
    """Returns the rate of what was due in the measure phase."""
    length_ns = max(1, outcome.measure_end_ns - outcome.measure_start_ns)
    return outcome.measured.intended_count * NS_PER_S / length_ns


def _counted_ns(outcome: LoadOutcome) -> int:
    """For how long replies were counted as achieved."""
    return max(1, outcome.counted_until_ns - outcome.measure_start_ns)


def achieved_rps(outcome: LoadOutcome) -> float:
    """Returns correct replies a second, by completion, while replies were counted.

    Counting by completion does not credit a server with replies that it gave after the phase.
    """
    return outcome.achieved_count * NS_PER_S / _counted_ns(outcome)
