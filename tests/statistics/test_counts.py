"""Histograms give the same quantiles and intervals as the samples that they were made of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.counts import Counts
from seatrial.stats.quantile import (
    counts_quantile_interval,
    needed_count,
    order_statistic_ranks,
    quantile_interval,
)
from tests.statistics.laws import at_least, at_most

SMALLEST = {0.5: 6, 0.9: 36, 0.95: 72, 0.99: 368, 0.999: 3688, 0.9999: 36887}


@pytest.mark.parametrize(("q", "needed"), SMALLEST.items())
def test_smallest_samples(q: float, needed: int) -> None:
    """The table of the least numbers; one sample fewer says so and never 0."""
    assert needed_count(q, confidence=0.95) == needed
    enough = counts_quantile_interval(Counts.of_pairs([1.0, 2.0], [needed - 1, 1]), q)
    assert isinstance(enough, Estimate)
    short = counts_quantile_interval(Counts.of_pairs([1.0], [needed - 1]), q)
    assert short == NotAvailable(reason=f"n/a (need >= {needed})", n=needed - 1, n_needed=needed)


def test_a_billion_samples_take_no_room() -> None:
    """Ranks of 1e9 samples agree with the binomial law's own quantiles."""
    for q in (0.5, 0.99, 0.99999):
        ranks = order_statistic_ranks(10**9, q, confidence=0.95)
        assert ranks is not None
        assert ranks.low == stats.binom.ppf(0.025, 10**9, q)
        assert ranks.high == stats.binom.ppf(0.975, 10**9, q) + 1
        assert 0.95 <= ranks.coverage < 0.951
    values = np.arange(1.0, 1001.0)
    found = counts_quantile_interval(Counts.of_pairs(values, np.full(1000, 10**6)), 0.99)
    assert isinstance(found, Estimate)
    assert (found.n, found.low, found.high) == (10**9, 990.0, 991.0)


@pytest.mark.parametrize("n", [1, 6, 400, 5000])
def test_counts_and_values_agree(n: int) -> None:
    """Point and interval are those of the raw sample, ties included."""
    rng = np.random.default_rng(n)
    values = np.round(rng.exponential(100, n))
    shuffled = rng.permutation(np.unique(values))
    counts = Counts.of_pairs(shuffled, [int((values == one).sum()) for one in shuffled])
    for q in (0.01, 0.5, 0.9, 0.99):
        assert counts.quantile(q) == pytest.approx(float(np.quantile(values, q)), rel=1e-12)
        assert counts_quantile_interval(counts, q) == quantile_interval(values, q)
        ranks = order_statistic_ranks(n, q, confidence=0.95)
        if ranks is not None:
            assert counts.at_rank(ranks.low) == np.sort(values)[ranks.low - 1]
            assert counts.at_rank(ranks.high) == np.sort(values)[ranks.high - 1]


def test_agents_are_pooled_and_never_averaged() -> None:
    """Two agents of means 100 and 1000: the p99 is 3963 +- 3 %, not the mean of two p99s."""
    rng = np.random.default_rng(14)
    agents = [np.round(rng.exponential(mean, 50_000)) for mean in (100, 1000)]
    pooled = Counts.pool(Counts.of_values(one) for one in agents)
    assert pooled.total == 100_000
    assert pooled.quantile(0.99) == pytest.approx(3963, rel=0.03)
    averaged = np.mean([np.quantile(one, 0.99) for one in agents])
    assert averaged == pytest.approx(2559, rel=0.03)
    both = Counts.of_values(np.concatenate(agents))
    assert np.array_equal(pooled.values, both.values)
    assert np.array_equal(pooled.counts, both.counts)


def test_coverage_of_independent_samples() -> None:
    """R15: 95 % +- 1.5 % over 2000 runs, at sizes where the binomial law is fine enough."""
    rng = np.random.default_rng(15)
    runs = 2000
    for q, n in ((0.5, 5000), (0.99, 20_000)):
        ranks = order_statistic_ranks(n, q, confidence=0.95)
        assert ranks is not None
        # The interval covers if the number of values below the quantile lies between the ranks.
        below = rng.binomial(n, q, runs)
        hits = int(((below >= ranks.low) & (below < ranks.high)).sum())
        assert 0.935 <= hits / runs <= 0.965
        assert at_least(hits, runs, 0.95)
        assert at_most(hits, runs, ranks.coverage)


def test_bad_samples_are_refused() -> None:
    """What is no sample is named with its value."""
    with pytest.raises(ValueError, match="a count is -1"):
        Counts.of_pairs([1.0], [-1])
    with pytest.raises(ValueError, match="2 values with 1 counts"):
        Counts.of_pairs([1.0, 2.0], [1])
    with pytest.raises(ValueError, match="finite"):
        Counts.of_pairs([float("nan")], [1])
    with pytest.raises(ValueError, match="ranks begin at 1"):
        Counts.of_pairs([1.0], [3]).at_rank(0)
    with pytest.raises(ValueError, match="use of_pairs"):
        Counts(np.array([2.0, 1.0]), np.array([1, 1]))
    with pytest.raises(ValueError, match="below 1"):
        Counts(np.array([1.0]), np.array([0]))
    assert Counts.pool([]).total == 0
    assert Counts.of_pairs([1.0, 5.0], [2, 0]).at_most_count(4.9) == 2
    assert Counts.of_values([3.0]).at_most_count(2.9) == 0
