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
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from seatrial.stats.capacity_trial import (
    TRIAL_CONFIDENCE,
    Judged,
    TrialOutcome,
    is_weak,
    judge_trial,
    needed_ratio,
)
from seatrial.stats.objective import Side, fewest_requests
from seatrial.units import NS_PER_S, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.stats.target import Objective

#: Step of the exponential probe.
PROBE_FACTOR = 2.0
#: Probes are far from the limit mostly, so they are this much shorter than trials in the bracket.
PROBE_DIVISOR = 4
#: Each repetition of an undecided trial is this many times as long.
REPEAT_GROWTH = 2
#: ... or this many times as long as it says would decide, which is itself an estimate.
NEEDED_MARGIN = 1.1
#: No trial is longer than this many times what was asked for.
LONGEST_FACTOR = 4
#: A trial is long enough for this many times the fewest requests that could decide at all.
FEWEST_FACTOR = 1.5
#: The bracket is narrow enough when its ends differ by this; the answer lies inside.
RESOLUTION_RATIO = 0.05
ANSWER_CONFIDENCE = 0.95


class CapacityVerdict(StrEnum):
    """How the search ended."""

    FOUND = "found"
    # Even the lowest rate breaks an objective, for certain.
    BELOW_RANGE = "below-range"
    # Even the highest rate keeps them all, for certain.
    ABOVE_RANGE = "above-range"
    # The trials ran out before the bracket was narrow.
    TRIALS_USED = "trials-used"
    # No trial decided one end of the answer, or the longest gave no number at some rate.
    UNDECIDED = "undecided"
    # Somebody ended it.
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWish:
    """The next trial to run."""

    rate_rps: float
    length_ns: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityRate:
    """Highest load that keeps the objectives; an end that no trial decided is open."""

    point: float | None
    """None where all trials lie on one side."""
    low: float | None
    """Highest rate that certainly keeps the objectives; None: none does."""
    high: float | None
    """Lowest rate that certainly breaks one; None: none does."""
    confidence: float
    n: int
    """Trials."""
    method: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The answer."""

    verdict: CapacityVerdict
    rate: CapacityRate | None
    """None: out of range, or both ends are open."""
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
        expected_count = max(1.0, wish.rate_rps * wish.length_ns / NS_PER_S)
        needed = (
            needed_ratio(self._objectives, outcome, expected_count=expected_count)
            if side is Side.UNDECIDED
            else None
        )
        judged = Judged(
            rate_rps=wish.rate_rps,
            length_ns=wish.length_ns,
            side=side,
            excess=excess,
            why=why,
            is_weak=is_weak(self._objectives, outcome),
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
        low, high = self._decided(keeps=keeps, breaks=breaks)
        is_known = low is not None and high is not None
        is_narrow = keeps is not None and breaks is not None and self._is_narrow(keeps, breaks)
        last = self._trials[-1]
        if low == self._range[1]:
            verdict = CapacityVerdict.ABOVE_RANGE
            reason = f"{low:g}/s, the highest rate, is still kept"
        elif high == self._range[0]:
            verdict = CapacityVerdict.BELOW_RANGE
            reason = f"{high:g}/s, the lowest rate, already fails: {last.why}"
        else:
            is_used_up = len(self._trials) >= self._trials_max and not is_narrow
            verdict = CapacityVerdict.TRIALS_USED if is_used_up else CapacityVerdict.UNDECIDED
            if is_known and is_narrow:
                verdict = CapacityVerdict.FOUND
            reason = f"{self._ends(low, high)}{self._advice(low, high)}"
        is_out = verdict in {CapacityVerdict.ABOVE_RANGE, CapacityVerdict.BELOW_RANGE}
        return Capacity(
            verdict=verdict,
            rate=None if is_out else self._rate(low, high, keeps=keeps, breaks=breaks),
            reason=reason,
            trials=tuple(self._trials),
        )

    def interrupted(self) -> Capacity:
        """What the trials so far allow to say; no more of them are asked for."""
        self._wish = None
        keeps, breaks = self._bracket()
        low, high = self._decided(keeps=keeps, breaks=breaks)
        return Capacity(
            verdict=CapacityVerdict.INTERRUPTED,
            rate=self._rate(low, high, keeps=keeps, breaks=breaks),
            reason=self._ends(low, high) if self._trials else "no trial had ended",
            trials=tuple(self._trials),
        )

    def _rate(
        self, low: float | None, high: float | None, *, keeps: float | None, breaks: float | None
    ) -> CapacityRate | None:
        if low is None and high is None:
            return None
        point = None
        if keeps is not None and breaks is not None:
            point = crossing(self._trials, keeps=keeps, breaks=breaks)
        return CapacityRate(
            point=point,
            low=low,
            high=high,
            confidence=ANSWER_CONFIDENCE,
            n=len(self._trials),
            method=f"bracket of {len(self._trials)} trials, isotonic crossing",
            unit="1/s",
        )

    def _is_narrow(self, keeps: float, breaks: float) -> bool:
        return breaks / keeps <= (1 + self._resolution) * (1 + 1e-9)

    def _ends(self, low: float | None, high: float | None) -> str:
        """The ends of the answer in words; only rates that were tried and decided are named."""
        if low is not None and high is not None:
            return f"between {low:g}/s, which keeps the objectives, and {high:g}/s, which does not"
        if low is not None:
            return f"at least {low:g}/s, which keeps the objectives; no rate certainly breaks one"
        if high is not None:
            return f"less than {high:g}/s, which breaks one; no rate certainly keeps the objectives"
        last = self._trials[-1]
        return f"no trial decided; {last.rate_rps:g}/s stays undecided: {last.why}"

    def _advice(self, low: float | None, high: float | None) -> str:
        """What would make a wide interval narrower: trials that may become as long as needed."""
        last = {one.rate_rps: one for one in self._trials}
        inside = [
            one
            for rate, one in last.items()
            if (low or 0) <= rate <= (high or math.inf) and one.side is Side.UNDECIDED
        ]
        is_open = low is None or high is None
        is_wide = low is None or high is None or high / low > (1 + self._resolution) ** 2
        if not inside or not is_wide:
            return ""
        if low is None and high is not None and not self._came_near():
            return "; no rate came near: does a single request keep them (-c 1, without --rate)?"
        known = [one.needed_ns for one in inside if one.needed_ns is not None]
        # Half of them would be decided, so the bracket would close around the others.
        typical_ns = statistics.median_low(known) if known else 0
        asked_ns = 0
        if typical_ns or is_open:
            # A search makes what is undecided as long as would decide, within bounds, by itself.
            enough_ns = math.ceil(NEEDED_MARGIN * typical_ns / LONGEST_FACTOR)
            asked_ns = max(enough_ns, REPEAT_GROWTH * self._trial_ns)
        # Without the blank it can be given as it is.
        asked = format_duration(asked_ns).replace(" ", "")
        length = f": --duration {asked}" if asked_ns else ""
        rates = "1 rate" if len(inside) == 1 else f"{len(inside)} rates"
        what = f"{rates} {'' if is_open else 'between '}{'stays' if len(inside) == 1 else 'stay'}"
        return f"; {what} undecided, longer trials decide more{length}"

    def _came_near(self) -> bool:
        """Whether any trial's point kept the limit; else load may have nothing to do with it."""
        return any(one.excess is not None and one.excess <= 0 for one in self._trials)

    def _length_ns(self, rate_rps: float, *, is_probe: bool = True) -> int:
        """As asked for, a probe shorter; longer where so few requests could decide nothing."""
        asked_ns = -(-self._trial_ns // PROBE_DIVISOR) if is_probe else self._trial_ns
        fewest = max(
            fewest_requests(one.allowed_share, confidence=TRIAL_CONFIDENCE)
            for one in self._objectives
        )
        longest_ns = self._trial_ns * LONGEST_FACTOR
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
        if self._is_narrow(keeps, breaks):
            return self._confirmation(keeps, breaks)
        return TrialWish(
            rate_rps=math.sqrt(keeps * breaks),
            length_ns=self._length_ns(math.sqrt(keeps * breaks), is_probe=False),
            why=f"between {keeps:g}/s and {breaks:g}/s",
        )

    def _confirmation(self, keeps: float, breaks: float) -> TrialWish | None:
        """A long trial at the lower end of what would be the answer, if few requests decided it.

        Among some fifteen short trials the one that happened to be calm would become that end.
        """
        low, high = self._decided(keeps=keeps, breaks=breaks)
        if low is None or high is None:
            return None
        longest_ns = LONGEST_FACTOR * self._trial_ns
        last = [one for one in self._trials if one.rate_rps == low][-1]
        if not last.is_weak or last.length_ns >= longest_ns:
            return None
        return TrialWish(rate_rps=low, length_ns=longest_ns, why="kept by few requests")

    def _longer(self, judged: Judged, wish: TrialWish) -> TrialWish:
        wanted_ns = max(
            REPEAT_GROWTH * wish.length_ns,
            self._trial_ns,
            math.ceil(NEEDED_MARGIN * (judged.needed_ns or 0)),
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
        sides: dict[float, Side] = {}
        for one in self._trials:
            side = one.side
            if side is Side.UNDECIDED and one.excess is not None:
                side = Side.BREAKS if one.excess > 0 else Side.KEEPS
            sides[one.rate_rps] = side
        return sides

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

    def _decided(
        self, *, keeps: float | None, breaks: float | None
    ) -> tuple[float | None, float | None]:
        """The bracket of what whole intervals decided; an end is open where none did."""
        last = {one.rate_rps: one.side for one in self._trials}
        low = max(
            (rate for rate, side in last.items() if side is Side.KEEPS and rate <= (keeps or 0)),
            default=None,
        )
        high = min(
            (
                rate
                for rate, side in last.items()
                if side is Side.BREAKS and rate >= (breaks or math.inf)
            ),
            default=None,
        )
        return low, high


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
