"""What one trial of a search for capacity says: objectives kept, broken, or undecided.

A trial decides at 99 % or not at all: by the share of its requests over the limit and by the share
that got no correct reply (`seatrial.stats.objective`), and by whether more and more requests stayed
unanswered. A short trial that merely ended in a busy moment is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seatrial.stats.dependence import student_quantile
from seatrial.stats.objective import ShareJudgement, Side, fewest_requests
from seatrial.units import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.stats.counts import Floats
    from seatrial.stats.target import Objective

#: A trial of which more requests than this share got no correct reply was beyond capacity.
UNSERVED_SHARE_MAX = 0.01
#: The growth of what is unanswered is looked at in so many stretches of a trial: few enough for
#: each to be longer than a queue's memory, enough to tell how much the growth scatters.
STRETCHES_COUNT = 10
#: A point that is on one side of the limit by this factor is not measured again for the sake of its
#: interval: far beyond capacity no trial is long enough for an interval of a p99. It guides the
#: search and is no end of the answer's interval.
CLEAR_FACTOR = 2.0
#: Level of the intervals that trials are to be judged by. A search looks at some fifteen of them;
#: at 0.99 each, the answer's interval covers in about 0.95 of the searches (by simulation).
TRIAL_CONFIDENCE = 0.99
#: Of per cents behind the point: a billionth of all requests.
PERCENT_DIGITS = 7
#: Fewer independent requests than this many times the fewest that could decide are weak evidence.
WEAK_FACTOR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """What a trial gave."""

    rate_rps: float
    """The rate that was offered, as it was wished for."""
    shares: Mapping[str, ShareJudgement]
    """What each objective's share says, by the objective as it is written."""
    points: Mapping[str, float] = field(default_factory=dict)
    """Response times in ns by the name of the percentile, one for each objective on time."""
    unserved: ShareJudgement | None = None
    """The share without a correct reply, judged against `UNSERVED_SHARE_MAX`; None: not asked."""
    backlog: Side = Side.KEEPS
    """Breaks: unanswered requests certainly grew in number; undecided: perhaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A trial, and what it decided."""

    rate_rps: float
    length_ns: int
    side: Side
    excess: float | None
    """Logarithm of measured over allowed, of the worst objective: 0 is the limit; None: no number,
    because the load was beyond capacity or too little was measured."""
    why: str
    is_weak: bool = False
    """Its requests are worth so few independent ones that their dependence is hardly known."""
    needed_ns: int | None = None
    """How long an undecided trial would have to be; None: unknown, or it is decided."""

    @property
    def is_clear(self) -> bool:
        """Whether the point alone is far from the limit."""
        return self.excess is not None and abs(self.excess) > math.log(CLEAR_FACTOR)


def judge_trial(
    objectives: Sequence[Objective], outcome: TrialOutcome
) -> tuple[Side, float | None, str]:
    """On which side a trial lies, by how much (log of measured over allowed), and why.

    Every objective must be kept for certain to keep; one that is broken for certain breaks.

    Raises:
        ValueError: An estimate that an objective needs is not there.
    """
    if not all(share.requests_count for share in outcome.shares.values()):
        needed = max(_share_for(one, outcome).needed_count or 1 for one in objectives)
        why = f"no request was due; {format_count(needed)} requests would decide"
        return Side.UNDECIDED, None, why
    unserved = outcome.unserved
    if unserved is not None and unserved.side is Side.BREAKS:
        why = f"beyond capacity: {1 - unserved.share:.1%} of the requests got a correct reply"
        return Side.BREAKS, None, why
    if outcome.backlog is Side.BREAKS:
        return Side.BREAKS, None, "beyond capacity: the number of unanswered requests grew"
    side, excess, why = _judge_objectives(objectives, outcome)
    doubt = _doubt(outcome)
    if side is Side.KEEPS and doubt is not None:
        return Side.UNDECIDED, excess, f"{why}; {doubt}"
    return side, excess, why


def judge_backlog(due_counts: Floats, done_counts: Floats) -> Side:
    """Whether what is unanswered certainly grew, from counts of equal stretches of a trial.

    At or below capacity the numbers that a stretch adds have a mean of at most nothing, and their
    sum scatters at most as if they were independent: a queue that is long gets shorter. So their
    mean is held against its standard error by Student's law. A queue that was empty can only grow,
    which is why the level is that of both sides. However even the stretches are, the growth itself
    is a number that scatters as a Poisson count does.
    """
    added = due_counts - done_counts
    growth = float(added.sum())
    if growth <= 0:
        return Side.KEEPS
    variance = max(float(added.var(ddof=1)) * added.size, growth)
    critical = student_quantile(TRIAL_CONFIDENCE, degrees=added.size - 1)
    return Side.BREAKS if growth > critical * math.sqrt(variance) else Side.UNDECIDED


def _doubt(outcome: TrialOutcome) -> str | None:
    """What may mean that the load was beyond capacity, without being certain."""
    unserved = outcome.unserved
    if unserved is not None and unserved.share > UNSERVED_SHARE_MAX:
        return f"but {unserved.share:.1%} of the requests got no correct reply"
    if outcome.backlog is Side.UNDECIDED:
        return "but the number of unanswered requests may have grown"
    return None


def _judge_objectives(
    objectives: Sequence[Objective], outcome: TrialOutcome
) -> tuple[Side, float | None, str]:
    judged = [
        _judge_one(one, _share_for(one, outcome), outcome.points.get(one.name))
        for one in objectives
    ]
    for side in (Side.BREAKS, Side.UNDECIDED, Side.KEEPS):
        matching = [one for one in judged if one[0] is side]
        if matching:
            known = [one[1] for one in judged]
            numbers = [one for one in known if one is not None]
            # Where all requests failed there is no response time, also if their share decides.
            is_open = side is Side.UNDECIDED and None in known
            return side, None if is_open else max(numbers, default=None), matching[0][2]
    raise AssertionError("a search has at least one objective")


def _excess(point: float, objective: Objective) -> float:
    """Logarithm of measured over allowed; no failures at all are far below any limit."""
    return math.log(max(point, 1e-6 * objective.limit) / objective.limit)


def needed_ratio(
    objectives: Sequence[Objective], outcome: TrialOutcome, *, expected_count: float
) -> float | None:
    """How many times as long a trial has to be to decide what it left open; None: unknown.

    Where no request was due, `expected_count` says how many are in a trial of that length.
    """
    shares = [_share_for(one, outcome) for one in objectives]
    needed = [
        None
        if share.needed_count is None
        else share.needed_count / (share.requests_count or expected_count)
        for share in shares
        if share.side is Side.UNDECIDED
    ]
    known = [one for one in needed if one is not None]
    return max(known) if known and len(known) == len(needed) else None


def is_weak(objectives: Sequence[Objective], outcome: TrialOutcome) -> bool:
    """Whether some objective was judged by few independent requests (`WEAK_FACTOR`)."""
    return any(
        _share_for(one, outcome).effective
        < WEAK_FACTOR * fewest_requests(one.allowed_share, confidence=TRIAL_CONFIDENCE)
        for one in objectives
    )


def _share_for(objective: Objective, outcome: TrialOutcome) -> ShareJudgement:
    found = outcome.shares.get(str(objective))
    if found is None:
        raise ValueError(f"the trial at {outcome.rate_rps}/s says nothing about {objective}")
    return found


def _percent(share: float) -> str:
    """Three digits; a bound that is nothing in all but name is nothing."""
    return f"{round(share * 100, PERCENT_DIGITS):.3g}%"


def _judge_one(
    objective: Objective, found: ShareJudgement, point: float | None
) -> tuple[Side, float | None, str]:
    if objective.q is None and found.requests_count:
        point = found.share
    of_limit = "" if point is None else f"{point / objective.limit:.2f} of the limit, "
    excess = None if point is None else _excess(point, objective)
    why = (
        f"{objective}: {of_limit}{_percent(found.share)} over it "
        f"[{_percent(found.low)}, {_percent(found.high)}], {_percent(found.allowed)} allowed"
    )
    if found.side is Side.UNDECIDED and found.needed_count is not None:
        why += f"; {format_count(found.needed_count)} requests would decide"
    return found.side, excess, why
