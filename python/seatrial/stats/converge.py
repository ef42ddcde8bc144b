"""When is a measurement long enough: extend it until its intervals are as narrow as asked.

Everything measured is kept; only the length grows. One who looks at an interval again and again
and stops at the first narrow one stops too often at one that is narrow by chance. So the looks
follow a geometric schedule (each at 1.25 to 2 times the length of the one before): some ten looks,
and simulation shows what they cost (METHODOLOGY 7.10). The controller is pure: lengths and
histograms go in, decisions come out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.counts import Counts
from seatrial.stats.dependent import intervals_quantile_interval
from seatrial.stats.target import WIDTH_RATIO_MIN, WidthTarget
from seatrial.units import format_duration

#: A look comes at least, and at most, this many times as late as the one before.
GROWTH_MIN = 1.25
GROWTH_MAX = 2.0
#: Share of the allowed error that a single look may spend: its interval is made at 96.5 % to be
#: believed at 95 % (by simulation; without it 93 % were covered where few bursts make the tail).
LOOK_ERROR_SHARE = 0.7
#: The extrapolated length is overshot by this, or half of the predictions would fall short.
MARGIN = 1.1
#: The goal is given up early when it would take this many times the budget, at two looks running.
HOPELESS_RATIO = 2.0
HOPELESS_LOOKS = 2


class ConvergeVerdict(StrEnum):
    """How the search for a narrow enough interval ended."""

    CONVERGED = "converged"
    # The time is used up.
    BUDGET = "budget"
    # More time within the budget cannot help.
    IMPOSSIBLE = "impossible"


class CorrectionReason(StrEnum):
    """Why a measurement was extended or given up."""

    TOO_WIDE = "interval-too-wide"
    TOO_FEW = "too-few-values"
    SATURATED = "saturated"
    OUT_OF_REACH = "out-of-reach"
    RESOLUTION = "finer-than-histogram"
    # The load had gone on beyond the planned length before anybody could look at it.
    UNSEEN = "not-looked-at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What has been measured so far."""

    elapsed_ns: int
    """Length of the measure phase so far."""
    intervals: Sequence[Counts]
    """Response times in ns of successive stretches of equal length, from the beginning."""
    pooled: Counts | None = None
    """All of them as one, where the caller has it already."""
    is_saturated: bool = False
    """The backlog grows: delays depend on how long one measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionEvent:
    """One correction of the length, with what led to it."""

    reason: CorrectionReason
    target: str
    at_ns: int
    """Length of the measurement when it was decided."""
    old_duration_ns: int
    """Planned until then: a look comes at the planned length, or a moment later."""
    new_duration_ns: int
    """Planned from then on; the same as the old one when the goal was given up."""
    samples_count: int | None
    """None when nobody looked."""
    width_ns: float | None
    """Of the interval then; None when there was none."""
    allowed_ns: float | None
    needed_ns: int | None
    """Length that it would take, by ``width ~ 1 / sqrt(length)``; None: no length would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Go on (no verdict) or stop."""

    verdict: ConvergeVerdict | None
    reason: str
    estimates: Mapping[str, Estimate | NotAvailable] = field(default_factory=dict)
    """By the name of the percentile; empty between two looks."""
    at_ns: int = 0
    """Length of the measurement when it was decided."""

    @property
    def is_done(self) -> bool:
        """Whether to stop offering load."""
        return self.verdict is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """How far one target is from being met."""

    target: WidthTarget
    estimate: Estimate | NotAvailable
    needed_ns: int | None
    reason: CorrectionReason

    @property
    def width_ns(self) -> float | None:
        one = self.estimate
        return one.high - one.low if isinstance(one, Estimate) else None

    @property
    def allowed_ns(self) -> float | None:
        one = self.estimate
        return self.target.allowed_ns(one.point) if isinstance(one, Estimate) else None


class Convergence:
    """Decides at each snapshot whether to go on; remembers its corrections in `events`."""

    def __init__(
        self,
        targets: Sequence[WidthTarget],
        *,
        first_look_ns: int,
        budget_ns: int,
        confidence: float = 0.95,
    ) -> None:
        if not targets:
            raise ValueError("no target; without one there is nothing to converge to")
        if not 0 < first_look_ns <= budget_ns:
            raise ValueError(
                f"first look at {first_look_ns} ns, budget {budget_ns} ns; expected the first to "
                "be above 0 and within the second"
            )
        self._targets = tuple(targets)
        self._budget_ns = budget_ns
        self._confidence = confidence
        self._hopeless_looks = 0
        self._last: Decision | None = None
        #: Length of the measurement at which it looks again.
        self.next_look_ns = first_look_ns
        self.events: list[CorrectionEvent] = []

    def look(self, snapshot: Snapshot) -> Decision:
        """Decides; between the looks of the schedule it answers at once without looking.

        Call it as often as you like, with growing snapshots. After a verdict it repeats that.
        """
        if self._last is not None and self._last.is_done:
            return self._last
        if snapshot.elapsed_ns < self.next_look_ns and not snapshot.is_saturated:
            wait = format_duration(self.next_look_ns)
            return Decision(
                verdict=None, reason=f"next look after {wait}", at_ns=snapshot.elapsed_ns
            )
        self._last = self._decide(snapshot)
        return self._last

    def finish(self, snapshot: Snapshot) -> Decision:
        """The verdict when the load has ended, for whatever reason, with what it gave."""
        if self._last is not None and self._last.is_done:
            return self._last
        self._budget_ns = min(self._budget_ns, snapshot.elapsed_ns)
        if snapshot.elapsed_ns > self.next_look_ns:
            self._note_unseen(snapshot.elapsed_ns)
        self._last = self._decide(snapshot)
        return self._last

    def _note_unseen(self, elapsed_ns: int) -> None:
        """Remembers that the load outlasted the length at which it was to be looked at."""
        planned_ns, self.next_look_ns = self.next_look_ns, elapsed_ns
        self.events.append(
            CorrectionEvent(
                reason=CorrectionReason.UNSEEN,
                target=", ".join(map(str, self._targets)),
                at_ns=planned_ns,
                old_duration_ns=planned_ns,
                new_duration_ns=elapsed_ns,
                samples_count=None,
                width_ns=None,
                allowed_ns=None,
                needed_ns=None,
            )
        )

    def _decide(self, snapshot: Snapshot) -> Decision:
        return dataclasses.replace(self._decided(snapshot), at_ns=snapshot.elapsed_ns)

    def _decided(self, snapshot: Snapshot) -> Decision:
        pooled = Counts.pool(snapshot.intervals) if snapshot.pooled is None else snapshot.pooled
        estimates = {one.name: self._estimate(one, snapshot, pooled) for one in self._targets}
        gaps = [
            gap
            for one in self._targets
            if (gap := _gap(one, estimates[one.name], snapshot.elapsed_ns)) is not None
        ]
        if snapshot.is_saturated:
            return self._give_up(snapshot, pooled, gaps, estimates)
        if not gaps:
            return Decision(
                verdict=ConvergeVerdict.CONVERGED,
                reason=f"{', '.join(map(str, self._targets))} reached after "
                f"{format_duration(snapshot.elapsed_ns)} with {pooled.total} values",
                estimates=estimates,
            )
        worst = max(gaps, key=lambda gap: math.inf if gap.needed_ns is None else gap.needed_ns)
        if worst.needed_ns is None:
            return self._stop(ConvergeVerdict.IMPOSSIBLE, snapshot, pooled, worst, estimates)
        if snapshot.elapsed_ns >= self._budget_ns:
            return self._stop(ConvergeVerdict.BUDGET, snapshot, pooled, worst, estimates)
        is_hopeless = worst.needed_ns > HOPELESS_RATIO * self._budget_ns
        self._hopeless_looks = self._hopeless_looks + 1 if is_hopeless else 0
        if self._hopeless_looks >= HOPELESS_LOOKS:
            return self._stop(ConvergeVerdict.IMPOSSIBLE, snapshot, pooled, worst, estimates)
        return self._extend(snapshot, pooled, worst, estimates)

    def _estimate(
        self, target: WidthTarget, snapshot: Snapshot, pooled: Counts
    ) -> Estimate | NotAvailable:
        level = 1 - LOOK_ERROR_SHARE * (1 - self._confidence)
        found = intervals_quantile_interval(
            snapshot.intervals, target.q, confidence=level, unit="ns", pooled=pooled
        )
        if isinstance(found, NotAvailable):
            return found
        method = f"{found.method}; made at {level:.1%} for the looks that were taken"
        return dataclasses.replace(found, confidence=self._confidence, method=method)

    def _extend(
        self,
        snapshot: Snapshot,
        pooled: Counts,
        worst: _Gap,
        estimates: Mapping[str, Estimate | NotAvailable],
    ) -> Decision:
        elapsed_ns, needed_ns = snapshot.elapsed_ns, worst.needed_ns or snapshot.elapsed_ns
        wished_ns = min(max(MARGIN * needed_ns, GROWTH_MIN * elapsed_ns), GROWTH_MAX * elapsed_ns)
        planned_ns = self.next_look_ns
        self.next_look_ns = min(math.ceil(wished_ns), self._budget_ns)
        self._record(worst, snapshot, pooled, old_duration_ns=planned_ns)
        return Decision(
            verdict=None,
            reason=f"{_shortfall(worst)}; extended to {format_duration(self.next_look_ns)}",
            estimates=estimates,
        )

    def _stop(
        self,
        verdict: ConvergeVerdict,
        snapshot: Snapshot,
        pooled: Counts,
        worst: _Gap,
        estimates: Mapping[str, Estimate | NotAvailable],
    ) -> Decision:
        if worst.needed_ns is None:
            way_out = f"no run can: histograms tell no less than {WIDTH_RATIO_MIN:.1%}"
        else:
            way_out = (
                f"{worst.target} would take about {format_duration(worst.needed_ns)}, the budget "
                f"is {format_duration(self._budget_ns)}"
            )
        reason = worst.reason
        if verdict is ConvergeVerdict.IMPOSSIBLE and worst.needed_ns is not None:
            reason = CorrectionReason.OUT_OF_REACH
        self._record(worst, snapshot, pooled, reason=reason, old_duration_ns=self.next_look_ns)
        return Decision(
            verdict=verdict,
            reason=f"{_shortfall(worst)} after {format_duration(snapshot.elapsed_ns)}; {way_out}",
            estimates=estimates,
        )

    def _give_up(
        self,
        snapshot: Snapshot,
        pooled: Counts,
        gaps: Sequence[_Gap],
        estimates: Mapping[str, Estimate | NotAvailable],
    ) -> Decision:
        """Saturated: there is no value that an interval could narrow to."""
        first = self._targets[0]
        gap = (
            gaps[0]
            if gaps
            else _Gap(
                target=first,
                estimate=estimates[first.name],
                needed_ns=None,
                reason=CorrectionReason.SATURATED,
            )
        )
        self._record(
            gap,
            snapshot,
            pooled,
            reason=CorrectionReason.SATURATED,
            old_duration_ns=self.next_look_ns,
        )
        return Decision(
            verdict=ConvergeVerdict.IMPOSSIBLE,
            reason="the service is saturated: its delays grow for as long as one measures, so no "
            "length gives a narrower interval; use a lower rate",
            estimates=estimates,
        )

    def _record(
        self,
        gap: _Gap,
        snapshot: Snapshot,
        pooled: Counts,
        *,
        old_duration_ns: int,
        reason: CorrectionReason | None = None,
    ) -> None:
        chosen = gap.reason if reason is None else reason
        is_lost = chosen is CorrectionReason.SATURATED
        self.events.append(
            CorrectionEvent(
                reason=chosen,
                target=str(gap.target),
                at_ns=snapshot.elapsed_ns,
                old_duration_ns=old_duration_ns,
                new_duration_ns=self.next_look_ns,
                samples_count=pooled.total,
                width_ns=gap.width_ns,
                allowed_ns=gap.allowed_ns,
                needed_ns=None if is_lost else gap.needed_ns,
            )
        )


def _gap(target: WidthTarget, estimate: Estimate | NotAvailable, elapsed_ns: int) -> _Gap | None:
    """What is missing, and for how long one would have to measure; None: nothing."""
    if isinstance(estimate, NotAvailable):
        growth = (estimate.n_needed or 0) / estimate.n if estimate.n else GROWTH_MAX
        needed_ns = math.ceil(elapsed_ns * max(growth, GROWTH_MIN))
        return _Gap(
            target=target, estimate=estimate, needed_ns=needed_ns, reason=CorrectionReason.TOO_FEW
        )
    width, allowed = estimate.high - estimate.low, target.allowed_ns(estimate.point)
    if width <= allowed:
        return None
    if allowed < WIDTH_RATIO_MIN * estimate.point:
        return _Gap(
            target=target, estimate=estimate, needed_ns=None, reason=CorrectionReason.RESOLUTION
        )
    return _Gap(
        target=target,
        estimate=estimate,
        needed_ns=math.ceil(elapsed_ns * (width / allowed) ** 2),
        reason=CorrectionReason.TOO_WIDE,
    )


def _shortfall(gap: _Gap) -> str:
    estimate = gap.estimate
    if isinstance(estimate, NotAvailable):
        return f"{gap.target.name}: {estimate.reason} with {estimate.n} values"
    width = estimate.high - estimate.low
    share = f" ({width / estimate.point:.1%})" if estimate.point else ""
    return (
        f"{gap.target.name}: interval {format_duration(width)}{share} wide where "
        f"{format_duration(gap.target.allowed_ns(estimate.point))} is asked"
    )
