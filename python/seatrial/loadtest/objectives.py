"""Holds a load against what a service has to keep; the rule is `seatrial.stats.objective`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.loadtest.examine import (
    counts_of,
    measured_intervals,
    response_quantile,
    response_series,
)
from seatrial.loadtest.result import ObjectiveResult
from seatrial.model.estimate import Estimate
from seatrial.stats.objective import (
    ShareJudgement,
    Side,
    failed_effective,
    judge_share,
    tail_effective,
)
from seatrial.units import NS_PER_S, format_count, format_duration

if TYPE_CHECKING:
    from seatrial.agents.outcome import LoadOutcome
    from seatrial.stats.target import Objective

HOLDS = {Side.KEEPS: True, Side.BREAKS: False, Side.UNDECIDED: None}


def judge(
    outcome: LoadOutcome, objective: Objective, *, confidence: float = 0.95
) -> ShareJudgement:
    """Returns what the share of requests over the limit says; failed ones are over any limit."""
    measured, intervals = outcome.measured, measured_intervals(outcome)
    failed = [interval.failed_count for interval in intervals]
    if objective.q is None:
        return judge_share(
            measured.failed_count,
            measured.intended_count,
            allowed=objective.allowed_share,
            effective=failed_effective(
                [interval.ok_count for interval in intervals], failed, confidence=confidence
            ),
            confidence=confidence,
        )
    pooled = counts_of(outcome.histograms["response"])
    late = pooled.total - pooled.below_count(objective.limit)
    return judge_share(
        min(measured.intended_count, late + measured.failed_count),
        measured.intended_count,
        allowed=objective.allowed_share,
        effective=tail_effective(
            [counts_of(interval.response) for interval in intervals],
            failed,
            q=objective.q,
            limit=objective.limit,
            confidence=confidence,
            series=response_series(outcome),
        ),
        confidence=confidence,
    )


def judge_objective(outcome: LoadOutcome, objective: Objective) -> ObjectiveResult:
    """Returns whether an objective holds, with the numbers that say so, in words as well."""
    judged = judge(outcome, objective)
    return ObjectiveResult(
        text=str(objective),
        holds=HOLDS[judged.side],
        evidence=_told(outcome, objective, judged),
        requests_count=judged.requests_count,
        over_count=judged.over_count,
        effective_count=judged.effective,
        low_ratio=judged.low,
        high_ratio=judged.high,
        allowed_ratio=judged.allowed,
        needed_count=judged.needed_count,
    )


def share_text(judged: ShareJudgement, *, is_failed: bool) -> str:
    """The share over the limit with the end of its interval that decides, and what is allowed."""
    what = "failed" if is_failed else "over it or failed"
    share = f"{_percent(judged.share)} of {format_count(judged.requests_count)} {what}"
    bound = {
        Side.KEEPS: f"at most {_percent(judged.high)}",
        Side.BREAKS: f"at least {_percent(judged.low)}",
        Side.UNDECIDED: f"between {_percent(judged.low)} and {_percent(judged.high)}",
    }[judged.side]
    return f"{share}, in truth {bound} ({_percent(judged.allowed)} allowed)"


def _told(outcome: LoadOutcome, objective: Objective, judged: ShareJudgement) -> str:
    if not judged.requests_count:
        return f"nothing was measured; it takes {format_count(judged.needed_count or 1)} requests"
    parts = [*_percentile(outcome, objective), share_text(judged, is_failed=objective.q is None)]
    if judged.side is Side.UNDECIDED:
        parts.append(_wanting(outcome, judged))
    return "; ".join(parts)


def _percentile(outcome: LoadOutcome, objective: Objective) -> list[str]:
    if objective.q is None:
        return []
    value = response_quantile(outcome, objective.q)
    if isinstance(value, Estimate):
        low, point, high = (format_duration(ns) for ns in (value.low, value.point, value.high))
        return [f"{objective.name} {point} [{low}, {high}]"]
    point_ns = outcome.histograms["response"].quantile(objective.q)
    return [] if point_ns is None else [f"{objective.name} ~{format_duration(point_ns)}"]


def _wanting(outcome: LoadOutcome, judged: ShareJudgement) -> str:
    """How many requests would have decided, and how long they take at this rate."""
    worth = ""
    if judged.effective < judged.requests_count / 2:
        worth = f"they come in clusters and are worth {format_count(int(judged.effective))}; "
    if judged.needed_count is None:
        return f"{worth}too close to the limit for any number of requests to decide"
    length_ns = outcome.measure_end_ns - outcome.measure_start_ns
    rate_rps = judged.requests_count * NS_PER_S / max(1, length_ns)
    # Without the blank it can be given as it is.
    duration = format_duration(judged.needed_count * NS_PER_S / rate_rps).replace(" ", "")
    count = format_count(judged.needed_count)
    return f"{worth}about {count} requests like these would decide: --duration {duration}"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"
