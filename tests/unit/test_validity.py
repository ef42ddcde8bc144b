"""Every rule of validity: silent below its limit, speaking above it, with its evidence."""

from __future__ import annotations

import pytest

from seatrial.model.finding import Severity
from seatrial.stats.drift import cold_first_round, sentinel_drift
from seatrial.stats.outlier import OutlierLabel, count_outliers, outlier_labels
from seatrial.stats.shape import quantile_curve
from seatrial.stats.validity import (
    check_cold_first_round,
    check_drift,
    check_generator,
    check_generator_cpu,
    check_leftovers,
    check_noise,
    check_sample_size,
    check_saturation,
    check_starts,
)


@pytest.mark.parametrize(
    ("lag_ns", "response_ns", "is_bound"),
    [(9_000, 100_000, False), (30_000, 100_000, True), (15_000, 30_000, False)],
)
def test_generator_bound(lag_ns: float, response_ns: float, is_bound: bool) -> None:  # noqa: FBT001 - a column of the table
    """A fifth of the response time at the same quantile, but never below what a timer can do."""
    found = check_generator(quantile="p99", pacing_lag_ns=lag_ns, response_time_ns=response_ns)
    assert (found is not None) == is_bound
    assert found is None or found.code == "generator-bound"


def test_saturated() -> None:
    """A growing backlog speaks; a large but steady one does not, nor does chance."""
    steady = check_saturation(offered_count=1000, backlog_before_count=200, backlog_after_count=210)
    chance = check_saturation(offered_count=50, backlog_before_count=2, backlog_after_count=6)
    grown = check_saturation(offered_count=1000, backlog_before_count=10, backlog_after_count=110)
    assert steady is None
    assert chance is None
    assert grown is not None
    assert grown.code == "saturated"
    assert "from 10 to 110" in grown.message
    assert check_saturation(offered_count=0, backlog_before_count=0, backlog_after_count=0) is None


def test_an_engine_without_idle_time() -> None:
    """Above nine tenths of its threads nothing shows that the engine kept up."""
    busy = check_generator_cpu(generator_cpu_ns=950, length_ns=1000, threads_count=1)
    assert busy is not None
    assert busy.code == "generator-bound"
    assert check_generator_cpu(generator_cpu_ns=950, length_ns=1000, threads_count=2) is None


def test_noisy_host() -> None:
    """One noisy window in twenty is information, three are a warning, none is silence."""
    quiet = [0.01] * 20
    assert check_noise(foreign_cpu_ratios=quiet, steal_ratios=quiet) is None
    rare = check_noise(foreign_cpu_ratios=[*quiet[1:], 0.5], steal_ratios=quiet)
    often = check_noise(foreign_cpu_ratios=[*quiet[3:], 0.5, 0.5, 0.5], steal_ratios=quiet)
    stolen = check_noise(foreign_cpu_ratios=quiet, steal_ratios=[0.1] * 20)
    assert rare is not None
    assert often is not None
    assert stolen is not None
    assert (rare.severity, often.severity) == (Severity.INFO, Severity.WARNING)
    assert stolen.evidence["steal_windows_count"] == 20


def test_drifting() -> None:
    """The finding carries the change and its interval."""
    assert check_drift(None) is None
    assert check_drift(sentinel_drift([1.0, 1.01, 0.99, 1.0])) is None
    found = check_drift(sentinel_drift([1.0, 1.1, 1.2, 1.3, 1.4]))
    assert found is not None
    assert found.code == "drifting"
    assert found.evidence["change_ratio"] == pytest.approx(0.4, abs=0.02)


def test_cold_first_round() -> None:
    """Information only: nothing is dropped for it."""
    cold = cold_first_round([2.0, 2.1, 2.2], [1.0, 1.1, 0.9, 1.01, 1.05, 0.95, 1.02])
    found = check_cold_first_round(cold, metric="start_first_byte_ns", driver="runc")
    assert found is not None
    assert (found.code, found.severity) == ("cold-first-round", Severity.INFO)
    assert check_cold_first_round(None, metric="x_ns") is None


def test_counts() -> None:
    """Too few samples, leftovers and failed starts name their numbers."""
    assert check_sample_size(n=10, n_needed=6, what="p50") is None
    few = check_sample_size(n=3, n_needed=6, what="p50")
    assert few is not None
    assert few.evidence == {"samples_count": 3, "needed_count": 6}
    assert check_leftovers(leftovers=[]) is None
    left = check_leftovers(leftovers=["/a", "/b", "/c", "/d"])
    assert left is not None
    assert left.severity is Severity.ERROR
    assert left.message.startswith("4 left")
    assert check_starts(failed_count=0, starts_count=5) is None
    failed = check_starts(failed_count=2, starts_count=5, reason="no such file")
    assert failed is not None
    assert "2 of 5" in failed.message
    assert "no such file" in failed.message


def test_outliers_are_labelled_and_counted() -> None:
    """Tukey's fences name a value; nothing is removed."""
    values = [-100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 13.0, 100.0]
    labels = outlier_labels(values)
    assert len(labels) == len(values)
    assert labels[0] is OutlierLabel.LOW_SEVERE
    assert labels[-1] is OutlierLabel.HIGH_SEVERE
    assert labels[-2] is OutlierLabel.HIGH_MILD
    assert count_outliers(values).total == 3
    assert count_outliers([]).total == 0
    assert outlier_labels([]) == ()


def test_curve_keeps_both_ends() -> None:
    """A thinned distribution has the exact extremes and ascends."""
    curve = quantile_curve(list(range(10_000)))
    assert (curve.values[0], curve.values[-1]) == (0, 9999)
    assert len(curve.values) <= 120
    assert list(curve.quantiles) == sorted(curve.quantiles)
    assert 0 < curve.quantiles[0] < curve.quantiles[-1] < 1
    assert quantile_curve([]).values == ()
