"""Percentiles of several loads: values that come in clusters are worth less, however many."""

from __future__ import annotations

import numpy as np

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.dependent import blocks_quantile_interval, series_quantile_interval
from seatrial.stats.quantile import block_quantile_interval


def loads(*, memory: float, count: int = 3, n: int = 5_000) -> list[np.ndarray]:
    """Loads whose values follow each other with a lag-1 correlation of `memory`."""
    draws = np.random.default_rng(7)
    found = []
    for _ in range(count):
        noise = draws.standard_normal(n)
        values = np.empty(n)
        values[0] = noise[0]
        for number in range(1, n):
            values[number] = memory * values[number - 1] + noise[number]
        found.append(np.exp(values * np.sqrt(1 - memory**2)))
    return found


def width(found: Estimate | NotAvailable) -> float:
    """From the low end to the high end."""
    assert isinstance(found, Estimate), found
    return found.high - found.low


def test_independent_values_get_the_interval_of_independent_values() -> None:
    """Looking for dependence costs next to nothing where there is none."""
    blocks = loads(memory=0.0)
    plain = block_quantile_interval(blocks, 0.5)
    assert 0.95 < width(blocks_quantile_interval(blocks, 0.5)) / width(plain) < 1.6


def test_values_with_a_memory_get_a_wider_one() -> None:
    """AR(1) with 0.95 is worth about a fortieth for its median, so six times as wide."""
    free, bound = loads(memory=0.0), loads(memory=0.95)
    ratio = width(blocks_quantile_interval(bound, 0.5)) / width(blocks_quantile_interval(free, 0.5))
    assert 3 < ratio < 15
    found = blocks_quantile_interval(bound, 0.5)
    assert isinstance(found, Estimate)
    assert "worth" in found.method


def test_loads_that_are_worth_too_little_give_no_interval() -> None:
    """One burst a load holds all large values: three bursts are no basis for a p99."""
    blocks = [np.concatenate([np.ones(2_000), np.full(40, 9.0), np.ones(2_000)]) for _ in range(3)]
    found = blocks_quantile_interval([one + 1e-6 * np.arange(one.size) for one in blocks], 0.999)
    assert isinstance(found, NotAvailable)
    assert found.n_needed is not None
    assert found.n_needed > found.n


def test_one_load_is_judged_as_a_series() -> None:
    """There is no difference between blocks to be seen."""
    (block,) = loads(memory=0.5, count=1)
    assert blocks_quantile_interval([block], 0.9) == series_quantile_interval(block, 0.9)
    assert isinstance(blocks_quantile_interval([], 0.9), NotAvailable)
