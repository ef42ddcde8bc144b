"""Findings that say the same of several trials, as one that shows the worst numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.model.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: How bad a finding is, by code: one number of its evidence, over another one where there are two;
#: the first pair that it has. Findings of other codes, or without such numbers, are merged only
#: when they say the same word by word.
WEIGHTS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "start-failures": (("failed_count", "starts_count"),),
    "stop-failures": (("failed_count", "stops_count"),),
    "request-failures": (("failed_count", "requests_count"),),
    "records-dropped": (("records_dropped_count", None),),
    "leftovers": (("leftovers_count", None),),
    "incomplete-reading": (("unreadable_count", None),),
    "generator-bound": (
        ("pacing_lag_ns", "response_time_ns"),
        ("generator_cpu_ns", "length_ns"),
        ("pacing_lag_ns", "mean_gap_ns"),
        ("planned_count", "sent_count"),
        ("planned_rps", "realised_rps"),
        ("statistic", "critical"),
    ),
    "saturated": (("backlog_after_count", "offered_count"), ("sent_count", "answered_count")),
    "not-stationary": (("change_ratio", None),),
    "not-independent": (("samples_count", "effective_count"),),
}
#: Codes whose counts have a meaning as a sum over trials: what was counted, and of how many.
SUMS = {
    "start-failures": ("failed_count", "starts_count", "starts"),
    "stop-failures": ("failed_count", "stops_count", "stops"),
    "request-failures": ("failed_count", "requests_count", "requests"),
}


def merge_alike(findings: Iterable[tuple[str, Finding]]) -> list[Finding]:
    """One finding for each code, severity, driver and point; see WEIGHTS for which are alike.

    Args:
        findings: Key of the point, and a finding of a trial there.
    """
    groups: dict[tuple[str, Severity, str | None, str, str], list[Finding]] = {}
    for point_key, found in findings:
        weighed = _weight(found)
        said = found.message if weighed is None else weighed[0]
        key = (found.code, found.severity, found.driver, point_key, said)
        groups.setdefault(key, []).append(found)
    return [_merged(point_key, group) for (_, _, _, point_key, _), group in groups.items()]


def _merged(point_key: str, group: Sequence[Finding]) -> Finding:
    worst = max(group, key=lambda found: (_weight(found) or ("", 0.0))[1])
    trials = len({found.trial_id for found in group})
    evidence = {**worst.evidence, "findings_count": len(group), "trials_count": trials}
    message = f"{point_key}: {worst.message}"
    if len(group) > 1:
        is_same = all(found.message == worst.message for found in group)
        which = "one" if is_same else "the worst"
        message += f" ({which} of {len(group)} such findings"
        if worst.code in SUMS:
            part, whole, what = SUMS[worst.code]
            sums = _sum(group, part), _sum(group, whole)
            message += f"; {sums[0]} of {sums[1]} {what} in all"
            evidence |= {"failed_total_count": sums[0], f"{what}_total_count": sums[1]}
        message += ")"
    return Finding(
        code=worst.code,
        severity=worst.severity,
        message=message,
        evidence=evidence,
        trial_id=worst.trial_id,
        driver=worst.driver,
    )


def _sum(group: Sequence[Finding], name: str) -> int:
    return sum(round(_number(found, name) or 0) for found in group)


def _weight(found: Finding) -> tuple[str, float] | None:
    """The number that says how bad it is, by name; None when there is none."""
    for top_name, bottom_name in WEIGHTS.get(found.code, ()):
        top = _number(found, top_name)
        bottom = 1.0 if bottom_name is None else _number(found, bottom_name)
        if top is not None and bottom:
            return top_name, top / bottom
    return None


def _number(found: Finding, name: str) -> float | None:
    value = found.evidence.get(name)
    return float(value) if isinstance(value, int | float) else None
