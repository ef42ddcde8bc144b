"""The number of arrivals scatters as its closed form has it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seatrial.loadgen import arrivals
from seatrial.stats.scatter import BURSTS_MIN, count_dispersion

RATE_RPS = 1e6
GAP_NS = 1000
EXPECTED = 4000
RUNS = 400


@pytest.mark.parametrize(
    "law",
    [
        "poisson",
        "uniform",
        "uniform:low=0.5",
        "uniform:high=1.5",
        "lognormal:cv=2",
        "gamma:cv=2",
        "gamma:shape=4",
        "weibull:shape=0.7",
        "pareto:shape=0.2",
        "pareto:shape=0.2,location=0.3",
        "pareto:alpha=5",
        "bimodal:ratio=10,share=0.1",
        "mmpp:factor=5,burst=2,calm=20",
        "mmpp:factor=50,burst=5us,calm=30us",
        "fb_ia",
    ],
)
def test_counts_scatter_by_the_closed_form(law: str) -> None:
    """The standard deviation of the number in a stretch is right to 15 %, four errors of it."""
    known = count_dispersion(law, rate_rps=RATE_RPS, expected_count=EXPECTED)
    assert known is not None
    end_ns, most = EXPECTED * GAP_NS, 2 * EXPECTED
    counts = [
        np.searchsorted(np.asarray(arrivals(law, RATE_RPS, seed=seed, n=most)), end_ns)
        for seed in range(RUNS)
    ]
    assert max(counts) < most
    assert float(np.std(counts)) == pytest.approx(math.sqrt(known * EXPECTED), rel=0.15)


def test_schedules_do_not_scatter() -> None:
    """What says every instant beforehand has a number, not a law of it."""
    for law in ("fixed", "trace:/tmp/a,b.csv"):
        assert count_dispersion(law, rate_rps=None, expected_count=10) == 0


def test_no_closed_form_is_no_number() -> None:
    """Infinite variances, moments that are not worked out, and few bursts: nothing is claimed."""
    for law in ("pareto:shape=0.5", "pareto:alpha=2", "gev:shape=0.1,scale=0.3", "hawkes"):
        assert count_dispersion(law, rate_rps=RATE_RPS, expected_count=1e6) is None
    # A burst and a calm take 22 gaps.
    law, enough = "mmpp:factor=5,burst=2,calm=20us", 22.0 * BURSTS_MIN
    assert count_dispersion(law, rate_rps=RATE_RPS, expected_count=enough + 1) is not None
    assert count_dispersion(law, rate_rps=RATE_RPS, expected_count=enough - 1) is None
    assert count_dispersion(law, rate_rps=None, expected_count=enough + 1) is None
