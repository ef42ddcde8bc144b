"""Findings about the run as a whole, from all of its trials together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seatrial.model.estimate import NotAvailable
from seatrial.model.finding import Finding, Severity
from seatrial.model.summary import FLOOR, Statistic
from seatrial.model.trial import TrialStatus
from seatrial.stats.drift import cold_first_round, sentinel_drift
from seatrial.stats.validity import (
    check_cold_first_round,
    check_drift,
    check_noise,
    check_sample_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.analysis.evidence import Series, SeriesKey, TrialEvidence
    from seatrial.model.summary import Cell

#: Where a first round is looked at: the latency of starting one sandbox at a time.
COLD_METRIC = "start_first_byte_ns"
SEVERITY_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def judge_run(
    trials: Sequence[TrialEvidence],
    series: Mapping[SeriesKey, Series],
    cells: Sequence[Cell],
    *,
    headlines: Mapping[str, str],
    confidence: float,
) -> tuple[Finding, ...]:
    """All findings, the most severe first.

    Args:
        trials: Every finished trial, with its own findings.
        series: The gathered samples.
        cells: The estimates.
        headlines: The headline metric of each bench.
        confidence: Level of the intervals.
    """
    found = _of_trials(trials)
    found += _unfinished(trials)
    found += _present(_noise(trials))
    found += _present([check_drift(sentinel_drift(_sentinel(trials), confidence=confidence))])
    found += _present(_cold(series.values()))
    found += _present(_too_few(cells, headlines))
    return tuple(sorted(found, key=_rank))


def _rank(finding: Finding) -> tuple[int, str, str]:
    return SEVERITY_ORDER.index(finding.severity), finding.code, finding.driver or ""


def _present(findings: Iterable[Finding | None]) -> list[Finding]:
    return [finding for finding in findings if finding is not None]


def _of_trials(trials: Sequence[TrialEvidence]) -> list[Finding]:
    """One finding for each code, driver and point, with the number of trials that raised it."""
    groups: dict[tuple[str, Severity, str | None, str], list[Finding]] = {}
    for trial in trials:
        for finding in trial.findings:
            key = (finding.code, finding.severity, finding.driver, trial.spec.point.key)
            groups.setdefault(key, []).append(finding)
    merged: list[Finding] = []
    for (_, _, _, point_key), group in groups.items():
        first, more = group[0], len({finding.trial_id for finding in group}) - 1
        alike = f" (and in {more} more trials alike)" if more else ""
        merged.append(
            Finding(
                code=first.code,
                severity=first.severity,
                message=f"{point_key}: {first.message}{alike}",
                evidence={**first.evidence, "trials_count": more + 1},
                trial_id=first.trial_id,
                driver=first.driver,
            )
        )
    return merged


def _unfinished(trials: Sequence[TrialEvidence]) -> list[Finding]:
    """A finding for every trial that is not ok and whose own findings do not say so."""
    codes = {
        TrialStatus.FAILED: ("trial-failed", Severity.ERROR),
        TrialStatus.UNSUPPORTED: ("unsupported", Severity.INFO),
        TrialStatus.INTERRUPTED: ("interrupted", Severity.WARNING),
    }
    reasons: dict[tuple[TrialStatus, str, str], set[str]] = {}
    for trial in trials:
        if trial.status is TrialStatus.OK:
            continue
        code, _ = codes[trial.status]
        if any(finding.code == code for finding in trial.findings):
            continue
        key = (trial.status, trial.spec.driver, trial.reason or trial.status.value)
        reasons.setdefault(key, set()).add(trial.spec.point.key)
    found: list[Finding] = []
    for (status, driver, reason), points in reasons.items():
        code, severity = codes[status]
        where = ", ".join(sorted(points))
        found.append(
            Finding(code=code, severity=severity, message=f"{reason} (at {where})", driver=driver)
        )
    return found


def _noise(trials: Sequence[TrialEvidence]) -> list[Finding | None]:
    """One verdict for the whole run: the host is the same for all drivers."""
    foreign = [ratio for trial in trials for ratio in trial.foreign_cpu_ratios]
    steal = [ratio for trial in trials for ratio in trial.steal_ratios]
    return [check_noise(foreign_cpu_ratios=foreign, steal_ratios=steal)]


def _sentinel(trials: Sequence[TrialEvidence]) -> list[float]:
    """Median sentinel latency of each block, in the order of blocks."""
    blocks: dict[int, list[float]] = {}
    for trial in trials:
        if trial.sentinel_ns:
            blocks.setdefault(trial.spec.block, []).extend(trial.sentinel_ns)
    return [float(np.median(blocks[block])) for block in sorted(blocks)]


def _cold(series: Iterable[Series]) -> list[Finding | None]:
    """First value of each trial against the later ones, where one sandbox starts at a time."""
    found: list[Finding | None] = []
    for one in series:
        if one.metric != COLD_METRIC or one.driver == FLOOR:
            continue
        if one.point.values.get("concurrency") != 1:
            continue
        first = [float(block[0]) for block in one.blocks.values()]
        rest = [float(value) for block in one.blocks.values() for value in block[1:]]
        cold = cold_first_round(first, rest)
        found.append(check_cold_first_round(cold, metric=one.metric, driver=one.driver))
    return found


def _too_few(cells: Sequence[Cell], headlines: Mapping[str, str]) -> list[Finding | None]:
    """Headline numbers without an interval; tail quantiles say so in their own cell."""
    found: list[Finding | None] = []
    for cell in cells:
        estimate = cell.estimate
        if cell.metric != headlines.get(cell.bench) or cell.driver == FLOOR:
            continue
        if cell.statistic not in {Statistic.P50, Statistic.MEAN}:
            continue
        if isinstance(estimate, NotAvailable) and estimate.n_needed is not None:
            what = f"{cell.point.key}, {cell.statistic} of {cell.metric}"
            found.append(
                check_sample_size(
                    n=estimate.n, n_needed=estimate.n_needed, what=what, driver=cell.driver
                )
            )
    return found
