"""Shares over a limit whose judgement is known, for trials of a search that nobody ran."""

from __future__ import annotations

from seatrial.stats.objective import ShareJudgement


def fixed(low: float, high: float, *, allowed: float = 0.01) -> ShareJudgement:
    """A share of one in between, whose interval is given; twice as many requests would decide."""
    return ShareJudgement(
        requests_count=1000,
        over_count=round(1000 * (low + high) / 2),
        effective=1e6,
        low=low,
        high=high,
        allowed=allowed,
        needed_count=2500,
    )


KEPT, BROKEN, OPEN = fixed(0, 0.004), fixed(0.05, 0.3), fixed(0.005, 0.02)
