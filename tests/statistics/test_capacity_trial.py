"""What one trial of a search for capacity says: kept, broken, or undecided."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seatrial.stats.capacity_trial import (
    STRETCHES_COUNT,
    UNSERVED_SHARE_MAX,
    TrialOutcome,
    judge_backlog,
    judge_trial,
)
from seatrial.stats.objective import ShareJudgement, Side
from seatrial.stats.target import parse_objectives
from tests.statistics.capacity_shares import BROKEN, KEPT, fixed


def test_failures_and_shortfall_break_an_objective() -> None:
    """A load that was not served breaks everything; a failed share counts like a percentile."""
    objectives = parse_objectives("p99<1us,failed<1%")
    good = {"p99<1.00 µs": KEPT}

    def trial(
        failed: tuple[float, float] | None, *, unserved: tuple[float, float] = (0, 0)
    ) -> TrialOutcome:
        shares = good if failed is None else {**good, "failed<1%": fixed(*failed)}
        points = {"p99": 10.0}
        lost = fixed(*unserved, allowed=UNSERVED_SHARE_MAX)
        return TrialOutcome(rate_rps=1, shares=shares, points=points, unserved=lost)

    side, _, why = judge_trial(objectives, trial((0.04, 0.06)))
    assert side is Side.BREAKS
    assert why == "failed<1%: 5.00 of the limit, 5% over it [4%, 6%], 1% allowed"
    assert judge_trial(objectives, trial((0, 0.001)))[0] is Side.KEEPS
    side, excess, why = judge_trial(objectives, trial((0, 0.001), unserved=(0.2, 0.26)))
    assert (side, excess) == (Side.BREAKS, None)
    assert why == "beyond capacity: 77.0% of the requests got a correct reply"
    side, _, why = judge_trial(objectives, trial((0, 0.001), unserved=(0.001, 0.04)))
    assert side is Side.UNDECIDED
    assert why.endswith("1% allowed; but 2.0% of the requests got no correct reply")
    with pytest.raises(ValueError, match=r"says nothing about failed<1%"):
        judge_trial(objectives, trial(None))


def test_a_backlog_breaks_only_for_certain() -> None:
    """One busy moment at the end of a trial is not the same as a queue that grows throughout."""
    steady = np.full(STRETCHES_COUNT, 10.0)
    busy = steady - np.array([0, 0, 0, 0, 0, 0, 0, 0, 9, 9])
    doubt = judge_backlog(steady, busy)
    assert doubt is Side.UNDECIDED
    assert judge_backlog(steady, steady + 0.1) is Side.KEEPS
    assert judge_backlog(steady, steady / 2) is Side.BREAKS
    # Three requests more, however evenly they came, may be chance.
    assert judge_backlog(steady, steady - 0.3) is Side.UNDECIDED
    objectives = parse_objectives("p99<1us")

    def judged(backlog: Side, share: ShareJudgement) -> tuple[Side, float | None, str]:
        shares = {"p99<1.00 µs": share}
        outcome = TrialOutcome(rate_rps=1, shares=shares, points={"p99": 10.0}, backlog=backlog)
        return judge_trial(objectives, outcome)

    side, excess, why = judged(Side.UNDECIDED, KEPT)
    assert side is Side.UNDECIDED
    assert excess == pytest.approx(math.log(0.01))
    assert why.endswith("; but the number of unanswered requests may have grown")
    assert judged(Side.UNDECIDED, BROKEN)[0] is Side.BREAKS
    assert judged(Side.BREAKS, KEPT) == (
        Side.BREAKS,
        None,
        "beyond capacity: the number of unanswered requests grew",
    )
