"""May the numbers of one load be believed: all that speaks against it, most serious first.

A load whose generator was late says nothing about the service; one above capacity has no
percentiles; one that changed has several; dependence and width only tell how sure one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from seatrial.model.finding import Finding, Severity
from seatrial.stats.arrivals import ArrivalCheck, RateCheck
from seatrial.stats.converge import ConvergeVerdict, Decision
from seatrial.stats.independence import ALPHA as INDEPENDENCE_ALPHA
from seatrial.stats.independence import CORRELATION_MIN, Independence
from seatrial.stats.stationarity import ALPHA as STATIONARITY_ALPHA
from seatrial.stats.stationarity import CHANGE_MIN_RATIO, Stationarity
from seatrial.stats.validity import PACING_LAG_FLOOR_NS, check_generator, check_saturation
from seatrial.units import format_duration, format_rate

#: Fewer of the planned requests sent: the generator did not keep up.
SENT_SHARE_MIN = 0.99
#: Fewer of the sent requests answered: the service did not.
ANSWERED_SHARE_MIN = 0.99
#: Where requests queue up until they are given up, those that are just in time waited almost as
#: long: a p99 below this share of the time-out says that the others did not wait but were lost.
LOST_RESPONSE_SHARE_MAX = 0.5
#: A p99 lag beyond this share of the mean gap bends the arrival process itself ...
GAP_LAG_SHARE_MAX = 0.10
#: ... which the response times show if the lag is also more than this share of their p99.
GAP_LAG_RESPONSE_SHARE_MIN = 0.05
#: From here on a change is told as a factor.
FACTOR_FROM_RATIO = 10.0
#: Most serious first.
ORDER: Final = (
    "generator-bound",
    "saturated",
    "not-stationary",
    "not-independent",
    "not-converged",
)
OK: Final = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadEvidence:
    """What is known of one load; what was not looked at is None and judged by nobody."""

    planned_count: int
    """Requests due in the measure phase."""
    sent_count: int
    """Requests of those that were sent."""
    answered_count: int
    """Requests of those that came to an end before the measure phase did, and not by a time-out:
    replies, errors of the application, refusals. In a rate comparison: ends a second."""
    blocked_count: int = 0
    """Planned requests that were not sent because no connection had a free place."""
    timeout_ns: int | None = None
    """After which a request without a reply is given up; None: at the end of the load."""
    backlog_before_count: int | None = None
    """Due and unanswered in the middle of the measure phase."""
    backlog_after_count: int | None = None
    """Due and unanswered at its end."""
    offered_between_count: int | None = None
    """Due between the two."""
    mean_gap_ns: float | None = None
    """Mean gap between two intended instants of the whole load; None for a closed loop."""
    pacing_lag_ns: Mapping[str, float] = field(default_factory=dict)
    """By percentile (p50, p99): from "due and a place free" to sent."""
    response_time_ns: Mapping[str, float] = field(default_factory=dict)
    """By percentile: response times of correct replies."""
    arrivals: ArrivalCheck | None = None
    rate: RateCheck | None = None
    independence: Independence | None = None
    is_dependence_corrected: bool = True
    """Whether the intervals are those of `seatrial.stats.dependent`."""
    stationarity: Stationarity | None = None
    convergence: Decision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadVerdict:
    """Everything that speaks against a load's numbers; nothing: they are ok."""

    findings: tuple[Finding, ...]

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes, each once, most serious first; ("ok",) when nothing weighs."""
        weighing = [one.code for one in self.findings if one.severity is not Severity.INFO]
        return tuple(dict.fromkeys(weighing)) or (OK,)

    @property
    def is_ok(self) -> bool:
        """Whether nothing but remarks is there."""
        return self.codes == (OK,)


def judge_load_run(evidence: LoadEvidence) -> LoadVerdict:
    """All that applies, with its numbers."""
    saturated = _saturated(evidence)
    found = [
        *_generator_bound(evidence, is_saturated=bool(saturated)),
        *saturated,
        *_not_stationary(evidence.stationarity),
        *_not_independent(evidence),
        *_not_converged(evidence.convergence),
    ]
    return LoadVerdict(findings=tuple(sorted(found, key=lambda one: ORDER.index(one.code))))


def _warning(code: str, message: str, **evidence: float | str) -> Finding:
    return Finding(code=code, severity=Severity.WARNING, message=message, evidence=evidence)


def _generator_bound(evidence: LoadEvidence, *, is_saturated: bool) -> list[Finding]:
    found: list[Finding] = []
    for name, lag_ns in evidence.pacing_lag_ns.items():
        response_ns = evidence.response_time_ns.get(name)
        if response_ns:
            late = check_generator(
                quantile=name, pacing_lag_ns=lag_ns, response_time_ns=response_ns
            )
            found += [] if late is None else [late]
    if not found:
        found += _late_for_the_gap(evidence)
    # Behind a saturated service connections fill up, and what could not leave is its doing.
    if not is_saturated:
        found += _unsent(evidence)
    if evidence.arrivals is not None and evidence.arrivals.is_kept is False:
        found.append(_bent(evidence.arrivals))
    rate = evidence.rate
    if rate is not None and not rate.is_kept and not is_saturated:
        found.append(off_rate(rate))
    return found


def off_rate(rate: RateCheck) -> Finding:
    """What is said of a rate that was not the one that was asked for."""
    return _warning(
        "generator-bound",
        f"{format_rate(rate.realised_rps)} were sent where {format_rate(rate.planned_rps)} "
        f"were planned (limit {rate.limit_ratio:.1%})",
        realised_rps=rate.realised_rps,
        planned_rps=rate.planned_rps,
        limit_ratio=rate.limit_ratio,
    )


def _late_for_the_gap(evidence: LoadEvidence) -> list[Finding]:
    """A lag that is small beside the response time but bends the gaps between requests."""
    lag_ns, gap_ns = evidence.pacing_lag_ns.get("p99"), evidence.mean_gap_ns
    if lag_ns is None or gap_ns is None:
        return []
    response_ns = evidence.response_time_ns.get("p99", 0.0)
    limit_ns = max(
        PACING_LAG_FLOOR_NS,
        GAP_LAG_SHARE_MAX * gap_ns,
        GAP_LAG_RESPONSE_SHARE_MIN * response_ns,
    )
    if lag_ns <= limit_ns:
        return []
    return [
        _warning(
            "generator-bound",
            f"the p99 pacing lag of {format_duration(lag_ns)} is {lag_ns / gap_ns:.0%} of the mean "
            f"gap between requests (limit {GAP_LAG_SHARE_MAX:.0%}, and "
            f"{format_duration(limit_ns)}): the arrivals are not those that were asked for",
            pacing_lag_ns=lag_ns,
            mean_gap_ns=gap_ns,
            limit_ns=limit_ns,
        )
    ]


def _unsent(evidence: LoadEvidence) -> list[Finding]:
    planned = evidence.planned_count - evidence.blocked_count
    if planned <= 0 or evidence.sent_count >= SENT_SHARE_MIN * planned:
        return []
    return [
        _warning(
            "generator-bound",
            f"{evidence.sent_count} of {planned} planned requests were sent "
            f"(limit {SENT_SHARE_MIN:.0%}): the generator did not keep up; use a lower rate, more "
            "threads or more processors",
            sent_count=evidence.sent_count,
            planned_count=evidence.planned_count,
            blocked_count=evidence.blocked_count,
        )
    ]


def _bent(check: ArrivalCheck) -> Finding:
    return _warning(
        "generator-bound",
        f"the requests did not leave as the {check.law} process has it: statistic "
        f"{check.statistic:.3g} of {check.n} gaps (limit {check.critical:g})",
        law=check.law,
        gaps_count=check.n,
        statistic=check.statistic or 0.0,
        critical=check.critical,
        **({} if check.distance is None else {"distance": check.distance}),
    )


def _saturated(evidence: LoadEvidence) -> list[Finding]:
    before, after = evidence.backlog_before_count, evidence.backlog_after_count
    if before is not None and after is not None and evidence.offered_between_count is not None:
        growing = check_saturation(
            offered_count=evidence.offered_between_count,
            backlog_before_count=before,
            backlog_after_count=after,
        )
        if growing is not None:
            return [growing]
    sent = evidence.sent_count
    if sent == 0 or evidence.answered_count >= ANSWERED_SHARE_MIN * sent or _loses(evidence):
        return []
    return [
        _warning(
            "saturated",
            f"{evidence.answered_count} of {sent} sent requests were answered "
            f"({evidence.answered_count / sent:.1%}, limit {ANSWERED_SHARE_MIN:.0%}) while "
            f"{evidence.planned_count} were planned: the load is above capacity, so delays depend "
            "on how long one measures; use a lower rate",
            answered_count=evidence.answered_count,
            sent_count=sent,
            planned_count=evidence.planned_count,
        )
    ]


def _loses(evidence: LoadEvidence) -> bool:
    """Whether what was answered was answered so soon that the rest is lost, and not waiting."""
    slowest_ns = evidence.response_time_ns.get("p99")
    if evidence.timeout_ns is None or slowest_ns is None:
        return False
    return slowest_ns < LOST_RESPONSE_SHARE_MAX * evidence.timeout_ns


def _not_stationary(course: Stationarity | None) -> list[Finding]:
    if course is None or course.is_stationary:
        return []
    cut = course.warm_up_share
    advice = (
        "no steady state was reached; measure longer"
        if cut is None
        else f"the first {cut:.1%} may be warm-up"
    )
    return [
        _warning(
            "not-stationary",
            f"response times changed while they were measured: windows range over "
            f"{_range(course.change_ratio)} (limit {CHANGE_MIN_RATIO:.0%}), "
            f"p = {course.p_value:.1g} (limit {STATIONARITY_ALPHA}); {advice}",
            change_ratio=course.change_ratio,
            p_value=course.p_value,
            p_trend=course.p_level,
            p_break=course.p_break,
            **({} if course.p_tail is None else {"p_tail": course.p_tail}),
            **({} if cut is None else {"warm_up_share": cut}),
        )
    ]


def _range(ratio: float) -> str:
    """In percent, or as a factor where nobody thinks in percent."""
    return f"{ratio:.0%}" if ratio < FACTOR_FROM_RATIO else f"a factor of {ratio + 1:.3g}"


def _not_independent(evidence: LoadEvidence) -> list[Finding]:
    found = evidence.independence
    if found is None or found.is_independent:
        return []
    is_corrected = evidence.is_dependence_corrected
    worst = found.worst
    how = "the intervals allow for it" if is_corrected else "the intervals are too narrow"
    far = (
        "at no lag that was looked at are they independent"
        if found.thinning is None
        else f"at lag {found.thinning} they are independent"
    )
    return [
        Finding(
            code="not-independent",
            severity=Severity.INFO if is_corrected else Severity.WARNING,
            message=f"response times depend on each other (rank correlation "
            f"{worst.correlation:.2f} at lag {worst.lag}, limit {CORRELATION_MIN} at p < "
            f"{INDEPENDENCE_ALPHA}): {found.n} are worth about {found.effective:.0f}, {how}; "
            f"{far}",
            evidence={
                "correlation": worst.correlation,
                "lag": worst.lag,
                "samples_count": found.n,
                "effective_count": found.effective,
                **({} if found.thinning is None else {"thinning": found.thinning}),
            },
        )
    ]


def _not_converged(decision: Decision | None) -> list[Finding]:
    if decision is None or decision.verdict in {None, ConvergeVerdict.CONVERGED}:
        return []
    return [
        _warning(
            "not-converged",
            f"{decision.verdict}: {decision.reason}",
            verdict=str(decision.verdict),
        )
    ]
