"""Laws to draw from whose quantiles are known, and the bound that a coverage must keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A distribution to draw from."""

    name: str
    draw: Callable[[np.random.Generator, int], Floats]
    quantile: Callable[[float], float]


def _bimodal(rng: np.random.Generator, n: int) -> Floats:
    is_slow = rng.random(n) < 0.35
    return rng.normal(10, 1, n) + 30 * is_slow


def _bimodal_quantile(q: float) -> float:
    def excess(x: float) -> float:
        return float(0.65 * stats.norm.cdf(x, 10, 1) + 0.35 * stats.norm.cdf(x, 40, 1) - q)

    return float(optimize.brentq(excess, 0, 60))


LAWS = (
    Law(
        name="normal",
        draw=lambda rng, n: rng.normal(100, 10, n),
        quantile=lambda q: float(stats.norm.ppf(q, 100, 10)),
    ),
    Law(
        name="lognormal",
        draw=lambda rng, n: rng.lognormal(0, 1, n),
        quantile=lambda q: float(stats.lognorm.ppf(q, 1)),
    ),
    Law(name="bimodal", draw=_bimodal, quantile=_bimodal_quantile),
)


def ar1_blocks(rng: np.random.Generator, *, blocks: int, n: int, memory: float) -> Floats:
    """Stationary first-order series with unit variance, shape (blocks, n)."""
    shocks = rng.normal(size=(blocks, n))
    series = np.empty_like(shocks)
    series[:, 0] = shocks[:, 0]
    for step in range(1, n):
        series[:, step] = memory * series[:, step - 1] + np.sqrt(1 - memory**2) * shocks[:, step]
    return series


def at_least(hits: int, repetitions: int, share: float) -> bool:
    """Whether so few hits are plausible (1 in 10 000) if the true share were as stated."""
    return bool(hits >= stats.binom.ppf(1e-4, repetitions, share))


def at_most(hits: int, repetitions: int, share: float) -> bool:
    """Whether so many hits are plausible (1 in 10 000) if the true share were as stated."""
    return bool(hits <= stats.binom.ppf(1 - 1e-4, repetitions, share))
