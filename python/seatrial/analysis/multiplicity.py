"""How many of many comparisons differ by chance alone: p values, and Holm's correction of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from seatrial.analysis.cells import PROPORTION_SUFFIX, SHARE_BOUNDS, block_means, is_foreign_mean
from seatrial.model.estimate import NotAvailable
from seatrial.model.summary import Change, Verdict
from seatrial.stats.ratio import undecided
from seatrial.stats.unpaired import (
    holm,
    p_value_of_means,
    p_value_of_ratio,
    p_value_of_shares,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.analysis.evidence import Series
    from seatrial.model.estimate import Estimate

DIFFERENT = frozenset({Verdict.FASTER, Verdict.SLOWER})


def p_value(old: Series, new: Series, ratio: Estimate | NotAvailable) -> float | None:
    """Chance of a difference at least as large if nothing had changed; None where unknown.

    By the test that fits the interval: Fisher's for shares of starts, Welch's for other shares and
    for means of rounds, Student's for the bootstrapped ratio of medians.
    """
    if old.metric.endswith(PROPORTION_SUFFIX):
        sides = [(int(one.pooled.sum()), int(one.pooled.size)) for one in (old, new)]
        return p_value_of_shares(sides[0], sides[1])
    if old.metric in SHARE_BOUNDS or is_foreign_mean(old.metric):
        return p_value_of_means(block_means(new), block_means(old))
    if isinstance(ratio, NotAvailable):
        return None
    return p_value_of_ratio(ratio, degrees=ratio.n - 1)


def adjusted(changes: Sequence[Change], *, confidence: float) -> tuple[Change, ...]:
    """Returns the changes with Holm's p value and the verdict that stands with it.

    The family is every comparison that was judged and has a p value. What was lost was not judged
    by chance, and stands.
    """
    family = [
        number
        for number, one in enumerate(changes)
        if one.p_value is not None
        and one.verdict not in {Verdict.NOT_JUDGED, Verdict.LOST, Verdict.BASELINE}
    ]
    values = holm([changes[number].p_value or 0.0 for number in family])
    by_number = dict(zip(family, values, strict=True))
    return tuple(
        dataclasses.replace(
            one,
            p_holm=by_number.get(number),
            adjusted=_stands(one, by_number.get(number), confidence=confidence),
        )
        for number, one in enumerate(changes)
    )


def _stands(change: Change, p_holm: float | None, *, confidence: float) -> Verdict:
    if change.verdict in DIFFERENT and p_holm is not None and p_holm > 1 - confidence:
        return undecided(change.ratio)
    return change.verdict


def by_chance(changes: Sequence[Change], *, confidence: float) -> tuple[str, ...]:
    """Says how many of the differences chance explains, and how many stand without it."""
    judged = [one for one in changes if one.p_holm is not None]
    different = [one for one in judged if one.verdict in DIFFERENT]
    expected = len(judged) * (1 - confidence)
    if len(judged) < 2:  # noqa: PLR2004 - a single comparison is what it says
        return ()
    standing = sum(one.adjusted in DIFFERENT for one in different)
    text = (
        f"{len(judged)} comparisons at {confidence:.0%} confidence: about {expected:.1g} of them "
        f"would differ by chance alone; {len(different)} do, {standing} of those also by Holm's "
        "correction for their number"
    )
    return (text,)
