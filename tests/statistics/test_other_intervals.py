"""Proportions, means, lines and effective sizes: each interval against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.dependence import effective_size, lag1_autocorrelation
from seatrial.stats.line import Line, fit_line
from seatrial.stats.mean import mean_interval
from seatrial.stats.proportion import proportion_interval
from tests.statistics.laws import ar1_blocks, at_least

REPETITIONS = 1000


@pytest.mark.parametrize("n", [5, 30, 1000])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_proportion_interval_covers(n: int, share: float) -> None:
    """Clopper-Pearson covers at least as often as stated, also near 0 and 1."""
    rng = np.random.default_rng(n)
    hits = 0
    for successes in rng.binomial(n, share, REPETITIONS):
        found = proportion_interval(int(successes), n)
        assert isinstance(found, Estimate)
        hits += found.low <= share <= found.high
    assert at_least(hits, REPETITIONS, 0.95)


def test_proportion_knows_its_edges() -> None:
    """All of ten is not certainty; none of nothing is no number."""
    found = proportion_interval(10, 10)
    assert isinstance(found, Estimate)
    assert (found.point, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.6915, abs=1e-4)  # tabulated
    assert isinstance(proportion_interval(0, 0), NotAvailable)
    with pytest.raises(ValueError, match="11 successes of 10"):
        proportion_interval(11, 10)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_mean_interval_covers(n: int) -> None:
    """Student's interval covers the mean of normal values at any count."""
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(REPETITIONS):
        found = mean_interval(list(rng.normal(5, 1, n)))
        assert isinstance(found, Estimate)
        hits += found.low <= 5 <= found.high
    assert at_least(hits, REPETITIONS, 0.95)
    assert isinstance(mean_interval([1.0]), NotAvailable)


def test_mean_of_shares_stays_a_share() -> None:
    """No interval of a share says anything below 0 or above 1."""
    low = mean_interval([0.0, 0.0, 0.3], bounds=(0.0, 1.0))
    high = mean_interval([0.2, 1.0, 1.0], bounds=(0.0, 1.0))
    assert isinstance(low, Estimate)
    assert isinstance(high, Estimate)
    assert (low.low, high.high) == (0.0, 1.0)


def test_mean_of_positive_values_has_positive_bounds() -> None:
    """Two throughputs far apart say little, but not that throughput may be negative."""
    found = mean_interval([1_000.0, 30_000.0])
    assert isinstance(found, Estimate)
    assert 0 < found.low < found.point == 15_500 < found.high


def test_line_covers_increment_and_fixed_part() -> None:
    """Both intervals of a fit cover: what one more costs and what all share."""
    rng = np.random.default_rng(9)
    counts = [1.0, 10.0, 20.0] * 3
    hits_slope = hits_fixed = 0
    for _ in range(REPETITIONS):
        totals = [24.0 + 11.0 * count + rng.normal(0, 2) for count in counts]
        found = fit_line(counts, totals)
        assert isinstance(found, Line)
        hits_slope += found.slope.low <= 11 <= found.slope.high
        hits_fixed += found.fixed.low <= 24 <= found.fixed.high
    assert at_least(hits_slope, REPETITIONS, 0.95)
    assert at_least(hits_fixed, REPETITIONS, 0.95)


def test_line_recovers_exact_values_and_refuses_too_little() -> None:
    """A noiseless line is found exactly; one count or two points are no evidence."""
    found = fit_line([1, 2, 3], [3.0, 5.0, 7.0])
    assert isinstance(found, Line)
    assert (found.slope.point, found.fixed.point) == pytest.approx((2.0, 1.0))
    assert found.determination_ratio == pytest.approx(1.0)
    assert isinstance(fit_line([1, 2], [1.0, 2.0]), NotAvailable)
    assert isinstance(fit_line([5, 5, 5], [1.0, 2.0, 3.0]), NotAvailable)
    with pytest.raises(ValueError, match="3 x values"):
        fit_line([1, 2, 3], [1.0])


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_effective_size_matches_theory(memory: float) -> None:
    """AR(1) of memory r is worth n (1 - r) / (1 + r) values, told within 35 %."""
    rng = np.random.default_rng(4)
    blocks = list(ar1_blocks(rng, blocks=10, n=500, memory=memory))
    found = effective_size(blocks, confidence=0.95)
    assert found.lag1_autocorrelation == pytest.approx(memory, abs=0.06)
    assert found.effective == pytest.approx(5000 * (1 - memory) / (1 + memory), rel=0.35)


def test_autocorrelation_needs_a_series() -> None:
    """A constant or a very short series has none, which is not the same as zero."""
    assert lag1_autocorrelation([1.0] * 50) is None
    assert lag1_autocorrelation([1.0, 2.0, 3.0]) is None
    assert lag1_autocorrelation([0.0, 1.0] * 20) == pytest.approx(-1, abs=0.05)
