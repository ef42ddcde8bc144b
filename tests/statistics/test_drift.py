"""Drift and the cold first round: seldom claimed without cause, found where they are."""

from __future__ import annotations

import numpy as np

from seatrial.stats.drift import block_drift, cold_first_round, sentinel_drift
from tests.statistics.laws import at_least, at_most

REPETITIONS = 500


def test_steady_sentinel_is_not_called_drifting() -> None:
    """Three per cent of noise over ten blocks raises no alarm in at least 99 % of runs."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(REPETITIONS):
        found = sentinel_drift(list(rng.lognormal(0, 0.03, 10)))
        assert found is not None
        alarms += found.is_drifting
    assert at_most(alarms, REPETITIONS, 0.01)


def test_a_slow_slide_is_found() -> None:
    """Forty per cent from first to last block is called drifting nearly always."""
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(REPETITIONS):
        values = np.exp(np.linspace(0, np.log(1.4), 8)) * rng.lognormal(0, 0.05, 8)
        drift = sentinel_drift(list(values))
        assert drift is not None
        found += drift.is_drifting
    assert at_least(found, REPETITIONS, 0.97)


def test_a_bump_without_trend_is_found() -> None:
    """A block in the middle that is twice as slow counts, though the trend is flat."""
    drift = sentinel_drift([1.0, 1.01, 2.0, 1.0, 0.99])
    assert drift is not None
    assert drift.is_drifting


def test_three_blocks_are_no_trend_but_have_a_range() -> None:
    """Below four blocks no trend is claimed; medians far apart are told from two on."""
    slide = sentinel_drift([1.0, 1.06, 1.12])
    assert slide is not None
    assert (slide.low_ratio, slide.is_drifting) == (None, False)
    for medians in ([1.0, 2.0, 3.0], [1.0, 1.3]):
        found = sentinel_drift(medians)
        assert found is not None
        assert found.is_drifting
    assert sentinel_drift([1.0]) is None


def test_few_scattered_starts_are_not_called_drifting() -> None:
    """Five starts a block that scatter by a quarter raise a false alarm in at most two per cent."""
    rng = np.random.default_rng(5)
    for blocks in (2, 3):
        alarms = 0
        for _ in range(REPETITIONS):
            found = block_drift([list(rng.lognormal(0, 0.25, 5)) for _ in range(blocks)])
            assert found is not None
            alarms += found.is_drifting
        assert at_most(alarms, REPETITIONS, 0.02)


def test_two_blocks_that_differ_are_found() -> None:
    """Half as slow again in the second of two blocks is found, with ten starts in each."""
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(REPETITIONS):
        drift = block_drift([list(level * rng.lognormal(0, 0.1, 10)) for level in (1.0, 1.5)])
        assert drift is not None
        found += drift.is_drifting
    assert at_least(found, REPETITIONS, 0.97)


def test_first_round_like_the_others_is_not_called_cold() -> None:
    """False alarms stay below two per cent."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(REPETITIONS):
        found = cold_first_round(list(rng.lognormal(0, 0.3, 5)), list(rng.lognormal(0, 0.3, 45)))
        assert found is not None
        alarms += found.is_cold
    assert at_most(alarms, REPETITIONS, 0.02)


def test_slow_first_round_is_called_cold() -> None:
    """One and a half times the median, as first starts are, is found."""
    rng = np.random.default_rng(4)
    found = cold_first_round(list(1.6 * rng.lognormal(0, 0.1, 5)), list(rng.lognormal(0, 0.1, 45)))
    assert found is not None
    assert found.is_cold
    assert 1.4 < found.ratio < 1.8


def test_cold_needs_enough_rounds() -> None:
    """One first value against nine others cannot reach the limit, so nothing is said."""
    assert cold_first_round([9.0], [1.0] * 9) is None
    assert cold_first_round([], [1.0] * 9) is None
