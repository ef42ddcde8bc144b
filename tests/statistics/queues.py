"""Response times of queues whose quantiles are known: what a load on one server gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, signal

Floats = NDArray[np.float64]

#: Service laws of mean 1: exponential, and hyperexponential with a squared variation of 4.
SERVICES: dict[str, tuple[Floats, Floats]] = {
    "M": (np.array([1.0]), np.array([1.0])),
    "H2": (np.array([0.8873, 0.1127]), np.array([1.7746, 0.2254])),
}
#: Requests until a queue that began empty has forgotten it, at the loads used here.
BURN_IN_COUNT = 4000


def ar1(rng: np.random.Generator, n: int, *, memory: float) -> Floats:
    """Stationary first-order series, standard normal."""
    shocks = rng.standard_normal(n) * np.sqrt(1 - memory**2)
    shocks[0] /= np.sqrt(1 - memory**2)
    series: Floats = signal.lfilter([1.0], [1.0, -memory], shocks)
    return series


def response_times(rng: np.random.Generator, n: int, *, load: float, service: str) -> Floats:
    """Response times of an M/G/1 queue in the order of arrival, by Lindley's recursion."""
    shares, rates = SERVICES[service]
    count = n + BURN_IN_COUNT
    which = rng.random(count) < shares[0]
    times = rng.standard_exponential(count) / np.where(which, rates[0], rates[-1])
    gaps = rng.standard_exponential(count) / load
    steps = np.concatenate(([0.0], times[:-1] - gaps[1:]))
    walk = np.cumsum(steps)
    found: Floats = (walk - np.minimum.accumulate(np.minimum(walk, 0)) + times)[BURN_IN_COUNT:]
    return found


def begun_queue(
    rng: np.random.Generator, rate: float, *, warm_up: float, length: float, service: str
) -> tuple[Floats, Floats]:
    """Due and done times of a load that begins with an empty M/G/1 queue, at any rate.

    Times are in mean services from the end of the warm-up on, in order; nothing is due after
    `length`.
    """
    shares, rates = SERVICES[service]
    total = warm_up + length
    due = np.sort(rng.random(rng.poisson(rate * total))) * total - warm_up
    which = rng.random(due.size) < shares[0]
    times = rng.standard_exponential(due.size) / np.where(which, rates[0], rates[-1])
    served = np.cumsum(times)
    # Each starts when it is due, or when those before it are done (Lindley).
    done: Floats = served + np.maximum.accumulate(due - (served - times))
    return due, done


def response_quantile(q: float, *, load: float, service: str) -> float:
    """Its true quantile: the response time is of phase type (Neuts 1981, 3.2)."""
    shares, rates = SERVICES[service]
    size = rates.size
    generator = np.zeros((2 * size, 2 * size))
    excess = shares / rates
    # Waiting: a geometric number of residual services, each left at its own rate.
    generator[:size, :size] = -np.diag(rates) + load * np.outer(rates, excess)
    ending = -generator[:size, :size].sum(axis=1)
    generator[:size, size:] = np.outer(ending, shares)
    generator[size:, size:] = -np.diag(rates)
    start = np.concatenate((load * excess, (1 - load) * shares))

    def surplus(time: float) -> float:
        return float((start @ linalg.expm(generator * time)).sum()) - (1 - q)

    return float(optimize.brentq(surplus, 0, 1e4))
