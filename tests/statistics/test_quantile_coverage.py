"""Order-statistic intervals cover as often as they say, whatever the law of the values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.quantile import (
    block_quantile_interval,
    needed_count,
    order_statistic_ranks,
    quantile_interval,
)
from tests.statistics.laws import LAWS, ar1_blocks, at_least

if TYPE_CHECKING:
    from tests.statistics.laws import Law

REPETITIONS = 400


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("n", [6, 10, 30, 100, 1000])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_median_interval_covers(law: Law, n: int, confidence: float) -> None:
    """The true median lies inside at least as often as stated, within binomial bounds."""
    rng = np.random.default_rng(n)
    truth = law.quantile(0.5)
    hits = 0
    for _ in range(REPETITIONS):
        found = quantile_interval(law.draw(rng, n), 0.5, confidence=confidence)
        assert isinstance(found, Estimate)
        hits += found.low <= truth <= found.high
    assert at_least(hits, REPETITIONS, confidence)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize(("q", "n"), [(0.9, 36), (0.9, 300), (0.99, 368), (0.99, 1000)])
def test_tail_quantile_interval_covers(law: Law, q: float, n: int) -> None:
    """Also at the smallest sample for which the interval exists."""
    rng = np.random.default_rng(int(n * q))
    truth = law.quantile(q)
    hits = 0
    for _ in range(REPETITIONS):
        found = quantile_interval(law.draw(rng, n), q)
        assert isinstance(found, Estimate)
        hits += found.low <= truth <= found.high
    assert at_least(hits, REPETITIONS, 0.95)


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_needed_count_is_exact(q: float, confidence: float) -> None:
    """One value fewer has no interval; the count itself has one that covers."""
    needed = needed_count(q, confidence=confidence)
    ranks = order_statistic_ranks(needed, q, confidence=confidence)
    assert ranks is not None
    assert ranks.coverage >= confidence
    assert order_statistic_ranks(needed - 1, q, confidence=confidence) is None


@pytest.mark.parametrize("n", [6, 7, 20, 59, 400])
@pytest.mark.parametrize("q", [0.25, 0.5, 0.75])
def test_ranks_are_the_narrowest_with_bounded_tails(n: int, q: float) -> None:
    """Moving either rank inwards would put more than half of the error into that tail."""
    ranks = order_statistic_ranks(n, q, confidence=0.95)
    if ranks is None:
        return
    law = stats.binom(n, q)
    assert law.cdf(ranks.low - 1) <= 0.025 < law.cdf(ranks.low)
    assert 1 - law.cdf(ranks.high - 1) <= 0.025 < 1 - law.cdf(ranks.high - 2)


def test_too_few_values_give_a_reason_and_no_number() -> None:
    """Five values have no 95 % interval of the median; the answer says how many it takes."""
    found = quantile_interval([1.0, 2.0, 3.0, 4.0, 5.0], 0.5)
    assert found == NotAvailable(reason="n/a (need >= 6)", n=5, n_needed=6)
    assert quantile_interval([], 0.99) == NotAvailable(
        reason="n/a (need >= 368)", n=0, n_needed=368
    )


@pytest.mark.parametrize(("blocks", "n"), [(1, 100), (3, 30), (5, 20), (10, 100)])
def test_independent_blocks_cost_little(blocks: int, n: int) -> None:
    """Where there is no dependence the corrected interval covers."""
    rng = np.random.default_rng(blocks * n)
    hits = 0
    for _ in range(REPETITIONS):
        found = block_quantile_interval(list(rng.normal(size=(blocks, n))), 0.5)
        assert isinstance(found, Estimate)
        hits += found.low <= 0 <= found.high
    assert at_least(hits, REPETITIONS, 0.95)


@pytest.mark.parametrize("memory", [0.5, 0.9])
@pytest.mark.parametrize(("blocks", "n"), [(5, 40), (10, 100)])
def test_autocorrelated_blocks_are_covered(memory: float, blocks: int, n: int) -> None:
    """AR(1) inside the blocks: uncorrected ranks fail, the corrected ones cover."""
    rng = np.random.default_rng(int(memory * 10) + blocks)
    hits = naive_hits = 0
    for _ in range(REPETITIONS):
        sample = ar1_blocks(rng, blocks=blocks, n=n, memory=memory)
        found = block_quantile_interval(list(sample), 0.5)
        naive = quantile_interval(sample.ravel(), 0.5)
        assert isinstance(naive, Estimate)
        naive_hits += naive.low <= 0 <= naive.high
        assert isinstance(found, Estimate)
        hits += found.low <= 0 <= found.high
    assert naive_hits < 0.88 * REPETITIONS
    assert at_least(hits, REPETITIONS, 0.94)


@pytest.mark.parametrize(("blocks", "n"), [(5, 20), (10, 10), (10, 100)])
def test_different_blocks_are_covered(blocks: int, n: int) -> None:
    """Each block shifted as a whole: the block variance widens the interval enough."""
    rng = np.random.default_rng(blocks + n)
    hits = 0
    for _ in range(REPETITIONS):
        sample = rng.normal(size=(blocks, n)) + rng.normal(0, 0.4, size=(blocks, 1))
        found = block_quantile_interval(list(sample), 0.5)
        assert isinstance(found, Estimate)
        hits += found.low <= 0 <= found.high
    assert at_least(hits, REPETITIONS, 0.94)


def test_three_different_blocks_are_covered_as_documented() -> None:
    """With three blocks a strong block effect is covered less often; the docstring says so."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(REPETITIONS):
        sample = rng.normal(size=(3, 30)) + rng.normal(0, 0.4, size=(3, 1))
        found = block_quantile_interval(list(sample), 0.5)
        assert isinstance(found, Estimate)
        hits += found.low <= 0 <= found.high
    assert at_least(hits, REPETITIONS, 0.85)
    assert hits < 0.95 * REPETITIONS
