"""Times of batches, trends over rounds, and ratios of two samples that are no pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.rounds import (
    first_round_ratio,
    is_first_round_outlier,
    round_trend,
    rounds_of,
)
from seatrial.stats.unpaired import (
    holm,
    mean_ratio_interval,
    p_value_of_ratio,
    p_value_of_shares,
)

ROUNDS = st.lists(st.floats(1, 1e6), min_size=3, max_size=60)


def test_a_batch_is_from_its_first_begin_to_its_last_end() -> None:
    """Two rounds of three; rows in any order; the lower 99th percentile never interpolates."""
    rounds = np.array([1, 0, 0, 1, 0, 1])
    begins = np.array([100, 2, 0, 101, 1, 103])
    ends = np.array([120, 12, 20, 105, 11, 108])
    found = rounds_of(rounds, begins, ends, members=3)
    assert found.numbers.tolist() == [0, 1]
    assert found.makespans_ns.tolist() == [20, 20]
    assert found.means_ns.tolist() == pytest.approx([40 / 3, 29 / 3])
    assert found.lower_p99_ns.tolist() == [10, 5]


def test_a_round_that_lacks_a_member_has_no_makespan() -> None:
    """The rows that are there would give a time that is too short."""
    found = rounds_of(np.array([0, 0, 1]), np.array([0, 0, 50]), np.array([9, 10, 55]), members=2)
    assert found.numbers.tolist() == [0]
    none = rounds_of(np.array([0]), np.array([0]), np.array([5]), members=2)
    assert none.numbers.size == 0


@given(ROUNDS)
def test_the_trend_is_the_line_of_least_squares(values: list[float]) -> None:
    """Slope and its t are those of an independent program."""
    found = round_trend(values)
    assert found is not None
    if np.ptp(values) < 1e-6 * max(values):
        return
    line = stats.linregress(np.arange(len(values)), values)
    assert found.change_ratio == pytest.approx(
        line.slope * len(values) / np.mean(values), rel=1e-6, abs=1e-9
    )
    if line.stderr > 1e-9 * max(values):
        assert found.t == pytest.approx(line.slope / line.stderr, rel=1e-5, abs=1e-6)


def test_kendalls_statistic_is_the_published_one() -> None:
    """Without ties it is S with its continuity correction over sqrt(n(n-1)(2n+5)/18)."""
    found = round_trend([1.0, 3.0, 2.0, 4.0, 5.0])
    assert found is not None
    assert found.kendall_z == pytest.approx((8 - 1) / math.sqrt(5 * 4 * 15 / 18))


def test_drifting_is_both_large_and_certain() -> None:
    """10 % over the rounds with |t| of 2; a scatter of 30 % is none, nor is a certain 1 %."""
    rng = np.random.default_rng(1)
    steady = 100 + rng.normal(0, 2, 50)
    assert (trend := round_trend(steady + np.arange(50) * 0.5)) is not None
    assert trend.is_drifting
    assert (small := round_trend(100 + np.arange(50) * 0.02 + rng.normal(0, 0.01, 50))) is not None
    assert not small.is_drifting
    assert abs(small.t) > 2
    assert (loose := round_trend([100, 30, 170, 40, 180, 100])) is not None
    assert not loose.is_drifting
    assert round_trend([1.0, 2.0]) is None


def test_a_first_round_may_be_too_fast() -> None:
    """RunD's fresh thin pool took 0.55 of the median, a template that was not warm 1.93."""
    for first, is_out in ((55, True), (193, True), (81, False), (124, False)):
        ratio = first_round_ratio([first, 100, 100, 100, 100])
        assert is_first_round_outlier(ratio) is is_out
    assert not is_first_round_outlier(first_round_ratio([1, 2]))


def test_ratio_of_means_has_welchs_interval() -> None:
    """The published means of RunD at 100 at once: 331.8 over 475.22 is 30.2 % less."""
    rng = np.random.default_rng(2)
    ours, theirs = (rng.normal(0, 10, 10) for _ in range(2))
    ours += 331.8 - ours.mean()
    theirs += 475.22 - theirs.mean()
    found = mean_ratio_interval(list(ours), list(theirs), confidence=0.95)
    assert isinstance(found, Estimate)
    assert found.point == pytest.approx(0.698, abs=0.0005)
    assert found.high < 0.75
    lone = mean_ratio_interval([1.0], [1.0, 2.0], confidence=0.95)
    assert isinstance(lone, NotAvailable)
    assert lone.n_needed == 2
    assert isinstance(mean_ratio_interval([0.0, 0.0], [1.0, 2.0], confidence=0.9), NotAvailable)


def test_the_interval_covers() -> None:
    """Of 400 ratios of equal means about 95 % hold 1."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        found = mean_ratio_interval(
            list(rng.lognormal(0, 0.2, 6)), list(rng.lognormal(0, 0.4, 9)), confidence=0.95
        )
        assert isinstance(found, Estimate)
        hits += found.low <= 1 <= found.high or 0
    # The logs differ in their mean by the variances: exp(0.02) over exp(0.08).
    assert 0.90 <= hits / 400 <= 0.99


def test_p_values_agree_with_their_intervals() -> None:
    """An interval that ends at 1 is a p of 5 %."""
    edge = Estimate(point=1.2, low=1, high=1.44, confidence=0.95, n=4, method="", unit="ratio")
    assert p_value_of_ratio(edge, degrees=3) == pytest.approx(0.05)
    same = Estimate(point=1, low=1, high=1, confidence=0.95, n=4, method="", unit="ratio")
    assert p_value_of_ratio(same, degrees=3) == 1
    assert p_value_of_shares((10, 10), (0, 10)) == pytest.approx(1.08e-5, rel=0.01)
    assert p_value_of_shares((10, 10), (10, 10)) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_only_ever_makes_less_sure(p_values: list[float]) -> None:
    """Adjusted values keep the order, are no smaller, and at most 1."""
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    assert max(adjusted) <= 1
    by_p = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)


def test_holm_by_hand() -> None:
    """The example of every textbook."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
