"""The highest load that keeps an objective, found with few trials and told with its interval.

A pure state machine: `CapacitySearch.next_trial` says at which rate and for how long to offer load,
`CapacitySearch.take` is told what came of it. First the rate doubles (or halves) until one trial
keeps the objectives and one does not; then the bracket is halved on a logarithmic scale. A trial
counts only if the share of its requests over the limit decides (`seatrial.stats.objective`);
otherwise it is repeated, twice as long or as long as would decide, within bounds. The answer joins
all trials: the crossing of a monotone fit through their points (isotonic regression; Barlow et al.
1972), inside the bracket of what was decided.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from seatrial.model.estimate import Estimate
from seatrial.stats.objective import ShareJudgement, Side, fewest_requests
from seatrial.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.stats.target import Objective

#: A trial that ended fewer requests than this share of those it offered was beyond capacity.
ACHIEVED_SHARE_MIN = 0.99
#: Step of the exponential probe.
PROBE_FACTOR = 2.0
#: Probes are far from the limit mostly, so they are this much shorter than trials in the bracket.
PROBE_DIVISOR = 4
#: Each repetition of an undecided trial is this many times as long.
REPEAT_GROWTH = 2
#: No trial is longer than this many times what was asked for.
LONGEST_FACTOR = 4
#: A trial is long enough for this many times the fewest requests that could decide at all.
FEWEST_FACTOR = 1.5
#: The bracket is narrow enough when its ends differ by this; the answer lies inside.
RESOLUTION_RATIO = 0.05
#: A point that is on one side of the limit by this factor is not measured again for the sake of its
#: interval: far beyond capacity no trial is long enough for an interval of a p99. It guides the
#: search and is no end of the answer's interval.
CLEAR_FACTOR = 2.0
#: Level of the intervals that trials are to be judged by. A search looks at some fifteen of them;
#: at 0.99 each, the answer's interval covers in about 0.95 of the searches (by simulation).
TRIAL_CONFIDENCE = 0.99
ANSWER_CONFIDENCE = 0.95


class CapacityVerdict(StrEnum):
    """How the search ended."""

    FOUND = "found"
    # Even the lowest rate breaks an objective.
    BELOW_RANGE = "below-range"
    # Even the highest rate keeps them all.
    ABOVE_RANGE = "above-range"
    # The trials ran out before the bracket was narrow.
    TRIALS_USED = "trials-used"
    # Even the longest trial gave no number at some rate.
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWish:
    """The next trial to run."""

    rate_rps: float
    length_ns: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """What a trial gave."""

    rate_rps: float
    """The rate that was offered, as it was wished for."""
    shares: Mapping[str, ShareJudgement]
    """What each objective's share says, by the objective as it is written."""
    points: Mapping[str, float] = field(default_factory=dict)
    """Response times in ns by the name of the percentile, one for each objective on time."""
    achieved_ratio: float = 1.0
    """Requests that ended over requests that were offered."""
    is_saturated: bool = False
    """The backlog grew."""


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
    needed_ns: int | None = None
    """How long an undecided trial would have to be; None: no length would do, or it is decided."""

    @property
    def is_clear(self) -> bool:
        """Whether the point alone is far from the limit."""
        return self.excess is not None and abs(self.excess) > math.log(CLEAR_FACTOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The answer."""

    verdict: CapacityVerdict
    rate: Estimate | None
    """Highest load that keeps the objectives, in 1/s; the interval runs from the highest rate that
    certainly keeps them to the lowest that certainly breaks one. None: out of range."""
    reason: str
    trials: tuple[Judged, ...]

    @property
    def measured_ns(self) -> int:
        """Length of all trials together."""
        return sum(one.length_ns for one in self.trials)


class CapacitySearch:
    """Asks for trials until it knows; see the module."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        *,
        start_rps: float,
        lowest_rps: float,
        highest_rps: float,
        trial_ns: int,
        trials_max: int = 32,
        repeats_max: int = 2,
        resolution_ratio: float = RESOLUTION_RATIO,
    ) -> None:
        if not objectives:
            raise ValueError("no objective; without one every load is within capacity")
        if not 0 < lowest_rps <= start_rps <= highest_rps:
            raise ValueError(
                f"start {start_rps}/s, lowest {lowest_rps}/s, highest {highest_rps}/s; expected "
                "0 < lowest <= start <= highest"
            )
        if trial_ns < 1 or trials_max < 1 or repeats_max < 0 or not 0 < resolution_ratio < 1:
            raise ValueError(
                f"trial of {trial_ns} ns, {trials_max} trials, {repeats_max} repeats, resolution "
                f"{resolution_ratio}; expected at least 1, 1, 0 and a share between 0 and 1"
            )
        self._objectives = tuple(objectives)
        self._range = (lowest_rps, highest_rps)
        self._trial_ns = trial_ns
        self._trials_max = trials_max
        self._repeats_max = repeats_max
        self._resolution = resolution_ratio
        self._trials: list[Judged] = []
        self._wish: TrialWish | None = TrialWish(
            rate_rps=start_rps, length_ns=self._length_ns(start_rps), why="first probe"
        )
        #: The same rate is not asked for more often than this.
        self._repeats = 0

    @property
    def next_trial(self) -> TrialWish | None:
        """The trial to run now; None when the search is over."""
        return self._wish

    def take(self, outcome: TrialOutcome) -> Judged:
        """Takes what the wished trial gave, and moves on.

        Raises:
            ValueError: No trial was wished for, or this is one at another rate, or an estimate
                that an objective needs is not there.
        """
        wish = self._wish
        if wish is None:
            raise ValueError("the search is over; no trial was asked for")
        if outcome.rate_rps != wish.rate_rps:
            raise ValueError(f"a trial at {outcome.rate_rps}/s where {wish.rate_rps}/s was asked")
        side, excess, why = judge_trial(self._objectives, outcome)
        needed = needed_ratio(self._objectives, outcome) if side is Side.UNDECIDED else None
        judged = Judged(
            rate_rps=wish.rate_rps,
            length_ns=wish.length_ns,
            side=side,
            excess=excess,
            why=why,
            needed_ns=None if needed is None else math.ceil(needed * wish.length_ns),
        )
        self._trials.append(judged)
        self._wish = self._next(judged, wish)
        return judged

    def result(self) -> Capacity:
        """The answer.

        Raises:
            ValueError: The search is not over.
        """
        if self._wish is not None:
            raise ValueError(f"the search goes on: {self._wish.why}")
        keeps, breaks = self._bracket()
        trials = tuple(self._trials)
        last = trials[-1]
        if last.side is Side.UNDECIDED and last.excess is None:
            reason = f"{last.rate_rps:g}/s stays undecided: {last.why}; use longer trials"
            return Capacity(
                verdict=CapacityVerdict.UNDECIDED, rate=None, reason=reason, trials=trials
            )
        if keeps is None:
            reason = f"{self._range[0]:g}/s, the lowest rate, already fails: {self._trials[-1].why}"
            return Capacity(
                verdict=CapacityVerdict.BELOW_RANGE, rate=None, reason=reason, trials=trials
            )
        if breaks is None:
            reason = f"{self._range[1]:g}/s, the highest rate, is still kept"
            return Capacity(
                verdict=CapacityVerdict.ABOVE_RANGE, rate=None, reason=reason, trials=trials
            )
        low, high = self._decided(keeps=keeps, breaks=breaks)
        point = min(max(crossing(trials, keeps=keeps, breaks=breaks), low), high)
        is_narrow = breaks / keeps <= (1 + self._resolution) * (1 + 1e-9)
        estimate = Estimate(
            point=point,
            low=low,
            high=high,
            confidence=ANSWER_CONFIDENCE,
            n=len(trials),
            method=f"bracket of {len(trials)} trials, isotonic crossing",
            unit="1/s",
        )
        return Capacity(
            verdict=CapacityVerdict.FOUND if is_narrow else CapacityVerdict.TRIALS_USED,
            rate=estimate,
            reason=f"between {low:g}/s, which keeps the objectives, and {high:g}/s, which does not"
            f"{self._advice(low, high)}",
            trials=trials,
        )

    def _advice(self, low: float, high: float) -> str:
        """What would make a wide interval narrower: trials as long as the undecided would need."""
        last = {one.rate_rps: one for one in self._trials}
        inside = [
            one for rate, one in last.items() if low <= rate <= high and one.side is Side.UNDECIDED
        ]
        known = [one.needed_ns for one in inside if one.needed_ns is not None]
        if not inside or high / low <= (1 + self._resolution) ** 2:
            return ""
        # Half of them would be decided, so the bracket would close around the others.
        typical = format_duration(statistics.median(known)).replace(" ", "") if known else ""
        length = f": --duration {typical}" if known else ""
        return f"; {len(inside)} rates between stay undecided, longer trials decide more{length}"

    def _length_ns(self, rate_rps: float, *, is_probe: bool = True) -> int:
        """As asked for, a probe shorter; longer where so few requests could decide nothing."""
        asked_ns = -(-self._trial_ns // PROBE_DIVISOR) if is_probe else self._trial_ns
        fewest = max(
            fewest_requests(one.allowed_share, confidence=TRIAL_CONFIDENCE)
            for one in self._objectives
        )
        longest_ns = self._trial_ns * (1 if is_probe else LONGEST_FACTOR)
        return max(asked_ns, min(longest_ns, math.ceil(FEWEST_FACTOR * fewest / rate_rps * 1e9)))

    def _next(self, judged: Judged, wish: TrialWish) -> TrialWish | None:
        if len(self._trials) >= self._trials_max:
            return None
        if judged.side is Side.UNDECIDED and not judged.is_clear:
            is_longest = wish.length_ns >= LONGEST_FACTOR * self._trial_ns
            if self._repeats < self._repeats_max and not is_longest:
                self._repeats += 1
                return self._longer(judged, wish)
            if judged.excess is None:
                return None
        self._repeats = 0
        return self._elsewhere(judged)

    def _elsewhere(self, judged: Judged) -> TrialWish | None:
        """A trial at another rate; None when the bracket is narrow or the range is used up."""
        keeps, breaks = self._bracket()
        if breaks is None:
            return self._probe(judged.rate_rps * PROBE_FACTOR, edge=self._range[1])
        if keeps is None:
            return self._probe(judged.rate_rps / PROBE_FACTOR, edge=self._range[0])
        if breaks / keeps <= 1 + self._resolution:
            return None
        return TrialWish(
            rate_rps=math.sqrt(keeps * breaks),
            length_ns=self._length_ns(math.sqrt(keeps * breaks), is_probe=False),
            why=f"between {keeps:g}/s and {breaks:g}/s",
        )

    def _longer(self, judged: Judged, wish: TrialWish) -> TrialWish:
        wanted_ns = max(
            REPEAT_GROWTH * wish.length_ns, self._trial_ns, math.ceil(1.1 * (judged.needed_ns or 0))
        )
        return TrialWish(
            rate_rps=wish.rate_rps,
            length_ns=min(wanted_ns, LONGEST_FACTOR * self._trial_ns),
            why="undecided before",
        )

    def _probe(self, rate_rps: float, *, edge: float) -> TrialWish | None:
        if self._trials[-1].rate_rps == edge:
            return None
        is_up = edge == self._range[1]
        bounded = min(rate_rps, edge) if is_up else max(rate_rps, edge)
        return TrialWish(
            rate_rps=bounded,
            length_ns=self._length_ns(bounded),
            why="doubling" if is_up else "halving",
        )

    def _sides(self) -> dict[float, Side]:
        """Where each rate lies: its last trial decides, the longest; its point if need be."""
        return {
            one.rate_rps: (
                one.side
                if one.side is not Side.UNDECIDED
                else Side.BREAKS
                if one.excess is not None and one.excess > 0
                else Side.KEEPS
            )
            for one in self._trials
        }

    def _bracket(self) -> tuple[float | None, float | None]:
        """Highest rate that keeps the objectives below the lowest that breaks one."""
        sides = self._sides()
        breaks = min((rate for rate, side in sides.items() if side is Side.BREAKS), default=None)
        keeps = max(
            (
                rate
                for rate, side in sides.items()
                if side is Side.KEEPS and (breaks is None or rate < breaks)
            ),
            default=None,
        )
        return keeps, breaks

    def _decided(self, *, keeps: float, breaks: float) -> tuple[float, float]:
        """The bracket of what whole intervals decided; undecided rates widen it."""
        last = {one.rate_rps: one.side for one in self._trials}
        low = max(
            (rate for rate, side in last.items() if side is Side.KEEPS and rate <= keeps),
            default=self._range[0],
        )
        high = min(
            (rate for rate, side in last.items() if side is Side.BREAKS and rate >= breaks),
            default=self._range[1],
        )
        return low, high


def judge_trial(
    objectives: Sequence[Objective], outcome: TrialOutcome
) -> tuple[Side, float | None, str]:
    """On which side a trial lies, by how much (log of measured over allowed), and why.

    Every objective must be kept for certain to keep; one that is broken for certain breaks.

    Raises:
        ValueError: An estimate that an objective needs is not there.
    """
    if outcome.is_saturated or outcome.achieved_ratio < ACHIEVED_SHARE_MIN:
        why = f"beyond capacity: {outcome.achieved_ratio:.1%} of the offered requests ended"
        if outcome.achieved_ratio >= ACHIEVED_SHARE_MIN:
            why = "beyond capacity: the number of unanswered requests grew"
        return Side.BREAKS, None, why
    judged = [
        _judge_one(one, _share_for(one, outcome), outcome.points.get(one.name))
        for one in objectives
    ]
    for side in (Side.BREAKS, Side.UNDECIDED, Side.KEEPS):
        matching = [one for one in judged if one[0] is side]
        if matching:
            known = [one[1] for one in judged]
            numbers = [one for one in known if one is not None]
            excess = None if side is Side.UNDECIDED and None in known else max(numbers)
            return side, excess, matching[0][2]
    raise AssertionError("a search has at least one objective")


def crossing(trials: Sequence[Judged], *, keeps: float, breaks: float) -> float:
    """Rate at which a monotone fit through all trials crosses the limit.

    The logarithm of measured over allowed must not fall with the logarithm of the rate; trials
    weigh by their length. Between fitted points the line is straight. Where trials without a
    number are all that is above, the answer is the middle of the bracket.
    """
    known = [one for one in trials if one.excess is not None]
    rates = np.unique([one.rate_rps for one in known])
    middle = math.sqrt(keeps * breaks)
    if rates.size < 2:  # noqa: PLR2004 - a line takes two points
        return middle
    weights = np.array([sum(one.length_ns for one in known if one.rate_rps == x) for x in rates])
    levels = np.array(
        [
            sum((one.excess or 0.0) * one.length_ns for one in known if one.rate_rps == x)
            for x in rates
        ]
    )
    fitted = isotonic(levels / weights, weights.astype(np.float64))
    positions = np.log(rates)
    above = np.flatnonzero(fitted > 0)
    if above.size == 0 or above[0] == 0:
        return middle
    right = int(above[0])
    low, high = fitted[right - 1], fitted[right]
    share = (0 - low) / (high - low)
    found = math.exp(positions[right - 1] + share * (positions[right] - positions[right - 1]))
    return min(max(found, keeps), breaks)


def isotonic(levels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least-squares fit that never falls (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for level, weight in zip(levels.tolist(), weights.tolist(), strict=True):
        blocks.append((level, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (low, low_weight, low_count), (high, high_weight, high_count) = blocks[-2:]
            weight_sum = low_weight + high_weight
            mean = (low * low_weight + high * high_weight) / weight_sum
            blocks[-2:] = [(mean, weight_sum, low_count + high_count)]
    return np.concatenate([np.full(count, level) for level, _, count in blocks])


def _excess(point: float, objective: Objective) -> float:
    """Logarithm of measured over allowed; no failures at all are far below any limit."""
    return math.log(max(point, 1e-6 * objective.limit) / objective.limit)


def needed_ratio(objectives: Sequence[Objective], outcome: TrialOutcome) -> float | None:
    """How many times as long a trial has to be to decide what it left open; None: no length is."""
    shares = [_share_for(one, outcome) for one in objectives]
    needed = [
        None if share.needed_count is None else share.needed_count / max(1, share.requests_count)
        for share in shares
        if share.side is Side.UNDECIDED
    ]
    known = [one for one in needed if one is not None]
    return max(known) if known and len(known) == len(needed) else None


def _share_for(objective: Objective, outcome: TrialOutcome) -> ShareJudgement:
    found = outcome.shares.get(str(objective))
    if found is None:
        raise ValueError(f"the trial at {outcome.rate_rps}/s says nothing about {objective}")
    return found


def _judge_one(
    objective: Objective, found: ShareJudgement, point: float | None
) -> tuple[Side, float | None, str]:
    if objective.q is None and found.requests_count:
        point = found.share
    of_limit = "" if point is None else f"{point / objective.limit:.2f} of the limit, "
    excess = None if point is None else _excess(point, objective)
    why = (
        f"{objective}: {of_limit}{found.share * 100:.3g}% over it "
        f"[{found.low * 100:.3g}%, {found.high * 100:.3g}%], {found.allowed * 100:.3g}% allowed"
    )
    if found.side is Side.UNDECIDED and found.needed_count is not None:
        why += f"; {format_count(found.needed_count)} requests would decide"
    return found.side, excess, why
