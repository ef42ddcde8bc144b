"""Proportions with exact binomial intervals (Clopper and Pearson 1934)."""

from __future__ import annotations

from scipy import special

from seatrial.model.estimate import Estimate, NotAvailable


def proportion_interval(
    successes: int, trials: int, *, confidence: float = 0.95
) -> Estimate | NotAvailable:
    """Share of successes, a ratio in 0..1, with an interval that never covers too seldom.

    Raises:
        ValueError: There are more successes than trials, or fewer than none.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials; expected 0 <= successes")
    if trials == 0:
        return NotAvailable(reason="n/a (need >= 1)", n=0, n_needed=1)
    tail = (1 - confidence) / 2
    low = special.betaincinv(successes, trials - successes + 1, tail) if successes else 0.0
    high = (
        special.betaincinv(successes + 1, trials - successes, 1 - tail)
        if successes < trials
        else 1.0
    )
    return Estimate(
        point=successes / trials,
        low=float(low),
        high=float(high),
        confidence=confidence,
        n=trials,
        method="Clopper-Pearson",
        unit="ratio",
    )
