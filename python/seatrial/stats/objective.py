"""Is an objective kept: from the share of requests over its limit, not from a percentile.

``p99<5ms`` says that at most 1 % of the requests take 5 ms or longer. So what decides is how many
of n requests did, or failed: with the exact binomial interval of that share (Clopper and Pearson
1934), the objective is kept if the whole interval lies at or below what is allowed, broken if it
lies above, and open between. No interval of the percentile itself is needed. Requests that depend
on each other are worth fewer (`dependent`), so the interval is that of as many independent ones,
with the same share over the limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from seatrial.stats.counts import Counts
from seatrial.stats.dependent import (
    BATCHES_MIN_COUNT,
    Worth,
    batches_worth,
    series_worth,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.stats.counts import Floats

#: Fewer values on one side of a threshold tell little about how they hang together.
TAIL_MIN_COUNT: Final = 10
#: No search for a needed number goes further: nobody offers so many requests.
NEEDED_MAX: Final = 1e12


class Side(StrEnum):
    """On which side of an objective something lies."""

    KEEPS = "keeps"
    BREAKS = "breaks"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareJudgement:
    """What the share of requests over a limit, or of failed ones, says about an objective."""

    requests_count: int
    over_count: int
    """Of them: as long as the limit or longer, or without a correct reply."""
    effective: float
    """Independent requests that these are worth."""
    low: float
    """Interval of the true share, 0 to 1."""
    high: float
    allowed: float
    """Share that the objective allows."""
    needed_count: int | None
    """Requests like these, with the same share over the limit, that would have decided; None if the
    share is what is allowed, so that no number would."""

    @property
    def share(self) -> float:
        """Share of these requests; nothing at all is no share that could be allowed."""
        return self.over_count / self.requests_count if self.requests_count else 1.0

    @property
    def side(self) -> Side:
        """Kept, broken, or undecided."""
        if not self.requests_count:
            return Side.UNDECIDED
        if self.low > self.allowed or self.share >= 1:
            return Side.BREAKS if self.low > self.allowed or self.allowed >= 1 else Side.UNDECIDED
        return Side.KEEPS if self.high <= self.allowed else Side.UNDECIDED


def share_interval(over: float, n: float, *, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share; numbers need not be whole."""
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(over, n - over + 1, tail)) if over > 0 else 0.0
    high = float(special.betaincinv(over + 1, n - over, 1 - tail)) if over < n else 1.0
    return low, high


def fewest_requests(allowed: float, *, confidence: float) -> int:
    """Independent requests that decide an objective if not one of them is over the limit."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log1p(-min(allowed, 1 - 1e-12)))


def judge_share(
    over_count: int, requests_count: int, *, allowed: float, effective: float, confidence: float
) -> ShareJudgement:
    """Judges a share of requests that are worth `effective` independent ones.

    Raises:
        ValueError: more are over the limit than there are.
    """
    if not 0 <= over_count <= requests_count:
        raise ValueError(f"{over_count} of {requests_count} requests are over the limit")
    if requests_count == 0:
        needed = fewest_requests(allowed, confidence=confidence)
        return ShareJudgement(
            requests_count=0,
            over_count=0,
            effective=0.0,
            low=0.0,
            high=1.0,
            allowed=allowed,
            needed_count=needed,
        )
    worth = min(float(requests_count), max(1.0, effective))
    share = over_count / requests_count
    low, high = share_interval(share * worth, worth, confidence=confidence)
    decisive = _decisive(share, allowed, confidence=confidence)
    return ShareJudgement(
        requests_count=requests_count,
        over_count=over_count,
        effective=worth,
        low=low,
        high=high,
        allowed=allowed,
        needed_count=None if decisive is None else math.ceil(decisive * requests_count / worth),
    )


def _decisive(share: float, allowed: float, *, confidence: float) -> float | None:
    """Independent requests with this share over the limit that decide; None if no number does."""

    def is_enough(n: float) -> bool:
        low, high = share_interval(share * n, n, confidence=confidence)
        return low > allowed or high <= allowed

    high = 1.0
    while not is_enough(high):
        high *= 2
        if high > NEEDED_MAX:
            return None
    low = high / 2
    while high - low > 0.5:  # noqa: PLR2004 - half a request
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def tail_effective(
    stretches: Sequence[Counts],
    failed: Sequence[int],
    *,
    q: float,
    limit: float,
    confidence: float,
    series: Floats | None = None,
) -> float:
    """Independent requests that a load is worth for the share that is over a limit.

    How requests hang together is seen at the limit and at the percentile itself, and the worse of
    the two counts. Either threshold is moved to where at least ten requests lie on both sides:
    further out there is nothing to see, and a service whose median comes in clusters has no
    independent tail.

    Args:
        stretches: Response times of successive stretches of equal length.
        failed: Requests without a correct reply in each of them.
        q: Which quantile the objective is about.
        limit: What it has to stay below, in the unit of the values.
        confidence: That of the interval, for widening.
        series: The response times one by one, in the order in which they were due; taken where
            there are fewer than eight stretches.
    """
    pooled = Counts.pool(stretches)
    total = pooled.total
    if not total:
        return 1.0
    edge = min(TAIL_MIN_COUNT, total // 2)
    lowest, highest = pooled.at_rank(max(1, edge)), pooled.at_rank(max(1, total - edge))
    wanted = {limit, pooled.quantile(q)} if limit > pooled.quantile(q) else {limit}
    thresholds = {min(max(one, lowest), highest) for one in wanted}
    n = total + sum(failed)
    worths = [
        _worth_at(stretches, failed, threshold, confidence=confidence, series=series)
        for threshold in thresholds
    ]
    return n / max(one.effect for one in worths)


def failed_effective(ok: Sequence[int], failed: Sequence[int], *, confidence: float) -> float:
    """Independent requests that a load is worth for the share that failed.

    Args:
        ok: Correct replies of successive stretches of equal length; of fewer than eight the
            requests count as independent.
        failed: Failed requests in each of them.
        confidence: That of the interval, for widening.
    """
    n = sum(ok) + sum(failed)
    if len(ok) < BATCHES_MIN_COUNT or not n:
        return float(n)
    inside = np.array(ok, dtype=np.float64)
    worth = batches_worth(inside, inside + np.array(failed), confidence=confidence)
    return n / worth.effect


def _worth_at(
    stretches: Sequence[Counts],
    failed: Sequence[int],
    threshold: float,
    *,
    confidence: float,
    series: Floats | None,
) -> Worth:
    if len(stretches) < BATCHES_MIN_COUNT and series is not None and series.size:
        return series_worth(series, threshold=threshold, confidence=confidence)
    inside = np.array([one.below_count(threshold) for one in stretches], dtype=np.float64)
    sizes = np.array(
        [one.total + lost for one, lost in zip(stretches, failed, strict=True)], dtype=np.float64
    )
    return batches_worth(inside, sizes, confidence=confidence)
