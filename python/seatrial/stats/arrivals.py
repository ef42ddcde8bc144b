"""Did the requests leave as the configured process has it?

For a random process the gaps go through their own distribution function, and what comes out must
be uniform on 0 to 1 (Rosenblatt 1952); so one test serves every law. For a fixed schedule the
question is another one: how far from its intended instant did each request leave?
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Anderson and Darling's statistic above this has a chance of 1 in 1000 under the law (all
#: parameters known; Marsaglia and Marsaglia 2004).
STATISTIC_MAX = 6.000
#: ... but a deviation of the distribution below this misplaces less than one gap in a hundred:
#: with a million gaps the test would find the clock's own resolution.
DISTANCE_MIN = 0.01
#: Fewer gaps cannot be told from any law.
GAPS_MIN_COUNT = 30
#: A fixed schedule is kept if all but 1 % of the requests leave within this share of a gap:
#: 5 % of jitter (one standard deviation) passes also with few requests, exponential gaps never do.
TOLERANCE_RATIO = 0.20
TOLERANCE_SHARE = 0.99
#: The realised rate may differ from the planned one by this, by one request (a schedule cut at two
#: instants has one more or less than rate times length), or by three standard errors.
RATE_TOLERANCE_RATIO = 0.01
RATE_ERRORS = 3.0
#: A quotient at its limit must not fall beyond it by its last digits.
ROUNDING_RATIO = 1e-9
#: An integer clock gives gaps of 0 ns, whose true value lies somewhere below 1 ns.
SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalCheck:
    """Verdict on the gaps between sends, with the numbers behind it."""

    law: str
    n: int
    is_kept: bool | None
    """Whether the sends follow the process; None: too few to tell."""
    statistic: float | None
    """Anderson and Darling's A squared; for a fixed schedule the 99th percentile of the deviation
    over the mean gap."""
    critical: float
    """What the statistic may be at most."""
    p_value: float | None
    """Of Anderson and Darling's test; None for a fixed schedule."""
    distance: float | None
    """Largest difference between the two distribution functions (Kolmogorov and Smirnov)."""
    distance_p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCheck:
    """The realised rate against the planned one."""

    planned_rps: float
    realised_rps: float
    limit_ratio: float
    """How far from 1 their ratio may be."""

    @property
    def ratio(self) -> float:
        """Realised over planned."""
        return self.realised_rps / self.planned_rps

    @property
    def is_kept(self) -> bool:
        """Whether the rate was what was asked for."""
        return abs(self.ratio - 1) <= self.limit_ratio + ROUNDING_RATIO


def check_arrivals(pit: Sequence[float] | NDArray[np.float64], *, law: str) -> ArrivalCheck:
    """Tests gaps that went through the configured law's distribution function.

    Args:
        pit: Probability of a gap at most as long, 0 to 1, one for each gap, in any order.
        law: Name of the configured law, for the report.

    Raises:
        ValueError: A value is not a probability.
    """
    uniform = np.sort(np.asarray(pit, dtype=np.float64))
    n = int(uniform.size)
    if n and not (uniform[0] >= 0 and uniform[-1] <= 1):
        raise ValueError(
            f"transformed gaps range from {uniform[0]} to {uniform[-1]}; expected 0 to 1"
        )
    if n < GAPS_MIN_COUNT:
        return ArrivalCheck(
            law=law,
            n=n,
            is_kept=None,
            statistic=None,
            critical=STATISTIC_MAX,
            p_value=None,
            distance=None,
            distance_p_value=None,
        )
    statistic = _anderson_darling(uniform)
    steps = np.arange(n + 1) / n
    distance = float(max(np.max(steps[1:] - uniform), np.max(uniform - steps[:-1])))
    return ArrivalCheck(
        law=law,
        n=n,
        is_kept=statistic <= STATISTIC_MAX or distance <= DISTANCE_MIN,
        statistic=statistic,
        critical=STATISTIC_MAX,
        p_value=1 - _anderson_darling_probability(statistic),
        distance=distance,
        distance_p_value=float(special.kolmogorov(distance * math.sqrt(n))),
    )


def check_fixed_schedule(
    deviations_ns: Sequence[float] | NDArray[np.float64],
    *,
    mean_gap_ns: float,
    law: str = "fixed",
) -> ArrivalCheck:
    """Tests how far from their intended instants the requests of a fixed schedule left.

    Args:
        deviations_ns: Sent minus intended, one for each request; early ones are negative.
        mean_gap_ns: Distance of two intended instants.
        law: What says the instants: evenly spaced ones, or a trace.
    """
    if mean_gap_ns <= 0:
        raise ValueError(f"the mean gap is {mean_gap_ns} ns; expected more than 0")
    shares = np.abs(np.asarray(deviations_ns, dtype=np.float64)) / mean_gap_ns
    n = int(shares.size)
    statistic = float(np.quantile(shares, TOLERANCE_SHARE)) if n >= GAPS_MIN_COUNT else None
    return ArrivalCheck(
        law=law,
        n=n,
        is_kept=None if statistic is None else statistic <= TOLERANCE_RATIO,
        statistic=statistic,
        critical=TOLERANCE_RATIO,
        p_value=None,
        distance=None,
        distance_p_value=None,
    )


def check_rate(
    *, planned_rps: float, sent_count: int, duration_ns: int, dispersion: float = 1.0
) -> RateCheck:
    """Compares how many requests were sent with how many the rate asks for.

    Args:
        planned_rps: The configured mean rate.
        sent_count: Requests sent in the measure phase.
        duration_ns: Length of the measure phase.
        dispersion: Variance over mean of the number of arrivals: 0 fixed, 1 Poisson
            (`seatrial.stats.scatter`).
    """
    if planned_rps <= 0 or duration_ns <= 0:
        raise ValueError(f"{planned_rps}/s over {duration_ns} ns; expected both above 0")
    planned_count = planned_rps * duration_ns / 1e9
    chance = RATE_ERRORS * math.sqrt(dispersion / max(planned_count, 1.0))
    return RateCheck(
        planned_rps=planned_rps,
        realised_rps=sent_count / duration_ns * 1e9,
        limit_ratio=max(RATE_TOLERANCE_RATIO, 1 / planned_count, chance),
    )


def _anderson_darling(uniform: NDArray[np.float64]) -> float:
    """A squared of an ascending sample against the uniform law (Anderson and Darling 1954)."""
    n = uniform.size
    inside = np.clip(uniform, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    weights = 2 * np.arange(1, n + 1) - 1
    return float(-n - np.dot(weights, np.log(inside) + np.log1p(-inside[::-1])) / n)


def _anderson_darling_probability(statistic: float) -> float:
    """``P(A squared < statistic)`` for large n (Marsaglia and Marsaglia 2004, ``adinf``).

    Their fit is accurate to 2e-6, and for n of 30 and more the limit law is within 0.001.
    """
    z = statistic
    if z <= 0:
        return 0.0
    if z < 2:  # noqa: PLR2004 - where the two branches of the fit meet
        series = np.polyval([0.00168691, -0.0116720, 0.0347962, -0.0649821, 0.247105, 2.00012], z)
        return float(math.exp(-1.2337141 / z) / math.sqrt(z) * series)
    series = np.polyval([-0.0003146, 0.008056, -0.082433, 0.43424, -2.30695, 1.0776], z)
    return float(math.exp(-math.exp(series)))
