"""Drift over rounds and unlike first rounds, by the rules of METHODOLOGY 7.5."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.finding import Severity
from seatrial.stats.mean import blocks_max_interval, blocks_mean_interval
from seatrial.stats.rounds import kendall_parts, kendall_z
from seatrial.stats.storms import first_rounds, trials_trend
from seatrial.stats.validity import check_first_round, check_round_trend


def rounds(
    seed: int, *, count: int, mean: float = 100.0, slope: float = 0.0, spread: float = 3.0
) -> list[float]:
    """Makespans of one trial on a line, with normal scatter."""
    source = np.random.default_rng(seed)
    line = mean + slope * (np.arange(count) - (count - 1) / 2)
    return list(line + source.normal(0, spread, count))


def test_a_growing_pool_is_found() -> None:
    """A fifth more over fifty rounds, as a thin pool that fills up: certain, and large."""
    trend = trials_trend([rounds(1, count=50, slope=0.4, spread=8)])
    assert trend is not None
    assert trend.is_drifting
    assert trend.change_ratio == pytest.approx(0.2, abs=0.06)
    assert trend.low_ns < 0.4 < trend.high_ns
    assert trend.kendall_z > 2
    finding = check_round_trend(trend, where="start concurrency=100", driver="katafc")
    assert finding is not None
    assert (finding.code, finding.severity) == ("rounds-drifting", Severity.WARNING)
    assert "start concurrency=100" in finding.message


def test_a_certain_but_small_change_is_no_finding() -> None:
    """Eight per cent is certain with little scatter; a mean still means something."""
    trend = trials_trend([rounds(2, count=50, slope=0.16, spread=0.5)])
    assert trend is not None
    assert abs(trend.t) > 10
    assert not trend.is_drifting
    assert check_round_trend(trend, where="here") is None


def test_false_alarms_are_rare() -> None:
    """Without a trend, scatter large enough to matter is taken for one in about 5 %."""
    alarms = 0
    for seed in range(400):
        trend = trials_trend([rounds(seed, count=20, spread=30)])
        assert trend is not None
        alarms += trend.is_drifting
    assert stats.binomtest(alarms, 400, 0.05).pvalue > 0.001


def test_differences_between_trials_are_no_trend() -> None:
    """Each trial has a level of its own; an hour between them is the sentinel's business."""
    trials = [[100.0, 101.0, 99.0, 100.0, 100.0], [150.0, 149.0, 151.0, 150.0, 150.0]]
    trend = trials_trend(trials)
    assert trend is not None
    assert not trend.is_drifting
    assert trend.rounds_count == 10


def test_too_few_rounds_say_nothing() -> None:
    """Neither a trend nor a first round is judged from four."""
    assert trials_trend([[1.0, 2.0, 3.0, 4.0]]) is None
    assert first_rounds([[9.0, 1.0, 1.0, 1.0]]) is None
    assert check_round_trend(None, where="here") is None
    assert check_first_round(None, where="here") is None


@pytest.mark.parametrize(
    ("first", "is_outlier"), [(0.6, True), (0.85, False), (1.0, False), (1.2, False), (1.93, True)]
)
def test_first_rounds_may_be_too_fast_as_well(first: float, *, is_outlier: bool) -> None:
    """A fresh pool is faster, a cold cache slower; both are told."""
    found = first_rounds([[first * 100, 100.0, 101.0, 99.0, 100.0, 100.0]])
    assert found is not None
    assert found.is_outlier is is_outlier
    finding = check_first_round(found, where="start concurrency=10", driver="katafc")
    assert (finding is not None) is is_outlier
    if finding is not None:
        assert finding.code == "first-round-outlier"


def test_kendall_agrees_with_the_reference() -> None:
    """Without ties, as scipy's normal approximation of the same statistic has it."""
    values = np.array(rounds(5, count=30, slope=0.5))
    reference = stats.kendalltau(np.arange(30), values, method="asymptotic")
    # scipy has no continuity correction, so S differs by one.
    n = values.size
    s = reference.statistic * n * (n - 1) / 2
    expected = (s - np.sign(s)) / np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    assert kendall_z([kendall_parts(values)]) == pytest.approx(float(expected))
    assert kendall_z([kendall_parts(np.ones(9))]) == 0


@pytest.mark.parametrize(("between", "least"), [(0.0, 0.93), (0.05, 0.85)])
def test_means_in_blocks_are_covered(between: float, least: float) -> None:
    """Blocks that differ a little cover less, as METHODOLOGY 7.2 says of few blocks."""
    covered, runs = 0, 300
    for seed in range(runs):
        source = np.random.default_rng(seed)
        blocks = [
            source.lognormal(0, 0.3, 40) * np.exp(source.normal(0, between)) for _ in range(6)
        ]
        estimate = blocks_mean_interval(blocks, confidence=0.95, unit="ns")
        assert isinstance(estimate, Estimate)
        truth = np.exp(0.3**2 / 2 + between**2 / 2)
        covered += estimate.low <= truth <= estimate.high
    assert covered / runs >= least


def test_the_largest_is_a_description() -> None:
    """It is the largest seen; its range is of the blocks' largest."""
    estimate = blocks_max_interval([np.array([1.0, 5.0]), np.array([2.0, 3.0])], unit="ns")
    assert isinstance(estimate, Estimate)
    assert (estimate.point, estimate.low, estimate.high) == (5, 3, 5)
    assert "no interval" in estimate.method
    assert isinstance(blocks_max_interval([]), NotAvailable)
    assert isinstance(blocks_mean_interval([np.array([1.0])]), NotAvailable)
