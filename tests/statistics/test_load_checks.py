"""Arrivals, independence and stationarity: seldom an alarm without cause, found where it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seatrial.stats.arrivals import check_arrivals, check_fixed_schedule, check_rate
from seatrial.stats.counts import Counts
from seatrial.stats.independence import check_independence, holm
from seatrial.stats.stationarity import (
    check_stationarity,
    check_stationarity_of_intervals,
    warm_up_share,
)
from tests.statistics.laws import at_least, at_most
from tests.statistics.queues import ar1, response_times


@pytest.mark.parametrize("n", [100, 1000, 4096])
def test_exponential_gaps_pass(n: int) -> None:
    """R17: gaps of the configured process pass in at least 99 % of runs, ns resolution included."""
    rng = np.random.default_rng(n)
    runs, mean_ns = 1000, 20_000.0
    passed = 0
    for _ in range(runs):
        gaps = np.floor(rng.exponential(mean_ns, n))
        passed += check_arrivals(-np.expm1(-gaps / mean_ns), law="poisson").is_kept is True
    assert passed >= 0.99 * runs


def test_statistic_and_p_values_agree_with_scipy() -> None:
    """Kolmogorov's distance is scipy's; five per cent of true samples have a p below 0.05."""
    rng = np.random.default_rng(17)
    uniform = rng.random(500)
    found = check_arrivals(uniform, law="pareto")
    theirs = stats.kstest(uniform, "uniform")
    assert found.distance == pytest.approx(theirs.statistic)
    assert found.distance_p_value == pytest.approx(theirs.pvalue, abs=0.03)
    low = 0
    for _ in range(2000):
        p_value = check_arrivals(rng.random(100), law="pareto").p_value
        assert p_value is not None
        low += p_value < 0.05
    assert at_least(low, 2000, 0.05)
    assert at_most(low, 2000, 0.05)


def test_the_limit_is_one_in_a_thousand() -> None:
    """The documented critical value and the p value say the same."""
    sample = stats.uniform.ppf((np.arange(1, 1001) - 0.5) / 1000) ** 1.3
    found = check_arrivals(sample, law="poisson")
    assert found.statistic is not None
    assert found.p_value is not None
    assert (found.statistic > found.critical) is (found.p_value < 0.001)
    assert found.is_kept is False


@pytest.mark.parametrize("n", [100, 4096])
def test_jittered_fixed_schedule(n: int) -> None:
    """Gaps with 5 % of jitter fail as exponential in every run and pass as fixed."""
    rng = np.random.default_rng(n)
    mean_ns = 20_000.0
    for _ in range(200):
        jitter = rng.normal(0, 0.05 * mean_ns, n + 1)
        gaps = mean_ns + np.diff(jitter)
        pit = -np.expm1(-np.maximum(gaps, 0) / mean_ns)
        assert check_arrivals(pit, law="poisson").is_kept is False
        assert check_fixed_schedule(jitter, mean_gap_ns=mean_ns).is_kept is True
    exponential = np.cumsum(rng.exponential(mean_ns, n)) - mean_ns * np.arange(1, n + 1)
    failed = check_fixed_schedule(exponential, mean_gap_ns=mean_ns)
    assert failed.is_kept is False
    assert failed.statistic is not None
    assert failed.statistic > failed.critical == 0.20


def test_harmless_deviations_of_many_gaps_pass() -> None:
    """A million gaps show a shift of 50 ns in 20 us; it misplaces 0.1 % of them and may stay."""
    rng = np.random.default_rng(5)
    gaps = rng.exponential(20_000.0, 1_000_000) + 50
    found = check_arrivals(-np.expm1(-gaps / 20_000.0), law="poisson")
    assert found.p_value == 0
    assert found.is_kept is True
    shifted = rng.exponential(20_000.0, 10_000) + 2000
    assert check_arrivals(-np.expm1(-shifted / 20_000.0), law="poisson").is_kept is False


def test_few_or_bad_gaps() -> None:
    """Too few gaps give no verdict; what is no probability is refused with its range."""
    assert check_arrivals([0.5] * 29, law="gamma").is_kept is None
    assert check_fixed_schedule([0.0] * 29, mean_gap_ns=1.0).is_kept is None
    with pytest.raises(ValueError, match=r"range from 0\.5 to 1\.5"):
        check_arrivals([0.5, 1.5], law="gamma")
    with pytest.raises(ValueError, match="mean gap is 0"):
        check_fixed_schedule([0.0], mean_gap_ns=0)


def test_rate() -> None:
    """One per cent, and chance: Poisson arrivals scatter, fixed ones do not."""
    kept = check_rate(planned_rps=1000, sent_count=9_950, duration_ns=10**10, dispersion=0)
    assert (kept.is_kept, kept.realised_rps, kept.ratio) == (True, 995.0, 0.995)
    late = check_rate(planned_rps=1000, sent_count=9_800, duration_ns=10**10, dispersion=0)
    assert late.is_kept is False
    assert check_rate(planned_rps=1000, sent_count=9_750, duration_ns=10**10).is_kept is True
    # One more than rate times length is what an instant on the edge makes.
    assert (
        check_rate(planned_rps=10, sent_count=11, duration_ns=10**9, dispersion=0).is_kept is True
    )
    assert (
        check_rate(planned_rps=10, sent_count=12, duration_ns=10**9, dispersion=0).is_kept is False
    )
    with pytest.raises(ValueError, match="expected both above 0"):
        check_rate(planned_rps=0, sent_count=1, duration_ns=1)


def test_independent_series_raise_no_alarm() -> None:
    """At most 1 % of independent series, of any size, are called dependent."""
    rng = np.random.default_rng(18)
    alarms = 0
    for _ in range(500):
        found = check_independence(rng.exponential(size=2000))
        assert found is not None
        alarms += not found.is_independent
    assert at_most(alarms, 500, 0.01)
    assert check_independence(rng.random(99)) is None


def test_dependence_is_found_and_thinned() -> None:
    """R18: AR(1) with 0.6 is found; every tenth value is independent, and is tested to be so."""
    rng = np.random.default_rng(19)
    for _ in range(20):
        series = ar1(rng, 20_000, memory=0.6)
        found = check_independence(np.exp(series))
        assert found is not None
        assert not found.is_independent
        assert found.worst.lag == 1
        assert found.worst.correlation == pytest.approx(0.58, abs=0.05)
        assert found.thinning in {5, 10}
        assert found.effective == pytest.approx(20_000 / 3.8, rel=0.3)
        thinned = check_independence(series[:: found.thinning])
        assert thinned is not None
        assert thinned.is_independent


def test_weak_correlation_of_many_values_does_not_matter() -> None:
    """0.03 is certain in a million values and below the floor of 0.05; 0.1 is not."""
    rng = np.random.default_rng(20)
    weak = check_independence(ar1(rng, 200_000, memory=0.03))
    assert weak is not None
    assert weak.is_independent
    assert weak.lags[0].p_value < 1e-6
    strong = check_independence(ar1(rng, 200_000, memory=0.1))
    assert strong is not None
    assert not strong.is_independent


def test_values_are_not_called_independent_nearer_than_where_they_depend() -> None:
    """A period of 1,000 values: thinned by a few it is too short to show what the whole shows."""
    generator = np.random.default_rng(4)
    instants = np.arange(3000)
    series = generator.exponential(size=3000) + 0.6 * np.sin(2 * np.pi * instants / 1000)
    found = check_independence(series)
    assert found is not None
    reach = max(lag.lag for lag in found.lags if lag.is_dependent)
    assert reach >= 500
    assert found.thinning is None or found.thinning > reach


def test_a_series_that_is_a_slide_has_no_thinning() -> None:
    """Where even the furthest values hang together, no distance is named."""
    found = check_independence(np.arange(3000.0))
    assert found is not None
    assert found.thinning is None
    constant = check_independence(np.full(200, 1.0))
    assert constant is not None
    assert constant.is_independent


def test_holm() -> None:
    """The worked example of the step-down method, in the order of the input."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_stationary_series_raise_few_alarms(memory: float) -> None:
    """R19: at most 5 % for independent values and for AR(1) with 0.6."""
    rng = np.random.default_rng(21)
    runs = 200
    alarms = 0
    for _ in range(runs):
        found = check_stationarity(np.exp(ar1(rng, 10_000, memory=memory)))
        assert found is not None
        alarms += not found.is_stationary
    assert at_most(alarms, runs, 0.05)


def test_a_busy_queue_is_stationary() -> None:
    """Response times at 80 % load wander, and that is not drift."""
    rng = np.random.default_rng(22)
    alarms = 0
    for _ in range(50):
        found = check_stationarity(response_times(rng, 20_000, load=0.8, service="M"))
        assert found is not None
        alarms += not found.is_stationary
    assert at_most(alarms, 50, 0.05)


def test_drift_is_found() -> None:
    """R19: 20 % of linear drift over 10,000 exponential values is found in 95 % and more."""
    rng = np.random.default_rng(23)
    runs = 200
    course = np.linspace(1, 1.2, 10_000)
    found_count = 0
    for _ in range(runs):
        found = check_stationarity(rng.exponential(size=10_000) * course)
        assert found is not None
        found_count += not found.is_stationary
        assert len(found.medians) == 10
    assert found_count >= 0.95 * runs


def test_a_step_and_a_growing_tail_are_found() -> None:
    """A service that is 20 % slower from the middle on, and one whose p99 alone grows."""
    rng = np.random.default_rng(24)
    n = 20_000
    for _ in range(20):
        values = rng.exponential(size=n)
        step = check_stationarity(values * np.where(np.arange(n) < n / 2, 1, 1.2))
        assert step is not None
        assert not step.is_stationary
        assert step.p_break < 0.01
        is_slow = rng.random(n) < np.linspace(0.0, 0.03, n)
        tail = check_stationarity(np.where(is_slow, 10 * values + 10, values))
        assert tail is not None
        assert tail.p_tail is not None
        assert tail.p_tail < 0.01
        assert not tail.is_stationary


def test_certain_but_tiny_drift_is_no_reason_to_measure_again() -> None:
    """One per cent over half a million values is certain, and below the floor of 5 %."""
    rng = np.random.default_rng(25)
    n = 500_000
    found = check_stationarity(rng.normal(100, 1, n) * np.linspace(1, 1.01, n))
    assert found is not None
    assert found.p_value < 0.01
    assert found.change_ratio < 0.05
    assert found.is_stationary


def test_intervals_tell_the_same_as_the_series() -> None:
    """Histograms of 100 stretches, empty ones among them, find the drift as well."""
    rng = np.random.default_rng(26)
    values = rng.exponential(size=20_000) * np.linspace(1, 1.2, 20_000)
    parts = [Counts.of_values(np.round(part, 3)) for part in np.array_split(values, 100)]
    parts.insert(50, Counts.of_values([]))
    found = check_stationarity_of_intervals(parts)
    assert found is not None
    assert not found.is_stationary
    assert found.n == 20_000
    assert len(found.tails) == 10
    assert check_stationarity_of_intervals(parts[:19]) is None
    assert check_stationarity(values[:19]) is None


def test_warm_up_is_found() -> None:
    """MSER-5: the first tenth is three times as slow, and is what should be cut."""
    rng = np.random.default_rng(27)
    shares = []
    for _ in range(20):
        means = rng.normal(1, 0.1, 1000)
        means[:100] += np.linspace(2, 0, 100)
        shares.append(warm_up_share(means))
    assert all(share is not None and 0.05 <= share <= 0.2 for share in shares)
    assert warm_up_share(rng.normal(size=49)) is None
    growing = np.linspace(1, 2, 600) + rng.normal(0, 0.01, 600)
    assert warm_up_share(growing) is None
