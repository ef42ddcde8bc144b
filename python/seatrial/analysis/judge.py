"""Findings about the run as a whole, from all of its trials together."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from seatrial.analysis.evidence import FIRST_BYTE
from seatrial.analysis.worst import merge_alike
from seatrial.model.estimate import NotAvailable
from seatrial.model.finding import Finding, Severity
from seatrial.model.summary import FLOOR, Statistic
from seatrial.model.trial import TrialStatus
from seatrial.stats.drift import block_drift, cold_first_round
from seatrial.stats.storms import first_rounds, trials_trend
from seatrial.stats.validity import (
    check_cold_first_round,
    check_drift,
    check_first_round,
    check_noise,
    check_round_trend,
    check_sample_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.analysis.evidence import TrialEvidence
    from seatrial.model.summary import Cell

SEVERITY_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def judge_run(
    trials: Sequence[TrialEvidence],
    cells: Sequence[Cell],
    *,
    headlines: Mapping[str, str],
    confidence: float,
) -> tuple[Finding, ...]:
    """All findings, the most severe first.

    Args:
        trials: Every finished trial, with its own findings.
        cells: The estimates.
        headlines: The headline metric of each bench.
        confidence: Level of the intervals.
    """
    found = _of_trials(trials)
    found += _unfinished(trials)
    found += _present(_noise(trials))
    found += _present([check_drift(block_drift(_sentinel(trials), confidence=confidence))])
    found += _rounds(trials, confidence=confidence)
    found += _present(_too_few(cells, headlines))
    return tuple(sorted(found, key=_rank))


def _rank(finding: Finding) -> tuple[int, str, str]:
    return SEVERITY_ORDER.index(finding.severity), finding.code, finding.driver or ""


def _present(findings: Iterable[Finding | None]) -> list[Finding]:
    return [finding for finding in findings if finding is not None]


def _of_trials(trials: Sequence[TrialEvidence]) -> list[Finding]:
    """The findings of single trials, those that say the same of one driver and point merged."""
    return merge_alike(
        (trial.spec.point.key, finding) for trial in trials for finding in trial.findings
    )


def _unfinished(trials: Sequence[TrialEvidence]) -> list[Finding]:
    """A finding for every trial that is not ok and whose own findings do not say so."""
    codes = {
        TrialStatus.FAILED: ("trial-failed", Severity.ERROR),
        TrialStatus.UNSUPPORTED: ("unsupported", Severity.INFO),
        TrialStatus.SKIPPED: ("no-room", Severity.INFO),
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


def _sentinel(trials: Sequence[TrialEvidence]) -> list[list[float]]:
    """Sentinel latencies of all trials of a block, in the order of blocks."""
    blocks: dict[int, list[float]] = {}
    for trial in trials:
        if trial.sentinel_ns:
            blocks.setdefault(trial.spec.block, []).extend(trial.sentinel_ns)
    return [blocks[block] for block in sorted(blocks)]


def _cold(trials: Sequence[TrialEvidence]) -> list[Finding | None]:
    """First round of every trial against all later ones, each round by its median.

    The round is the unit, at every concurrency: starts of one batch wait for each other and are
    not independent.
    """
    rounds: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for trial in trials:
        if trial.round_medians_ns:
            key = (trial.spec.point.key, trial.spec.driver)
            rounds.setdefault(key, []).append(trial.round_medians_ns)
    found: list[Finding | None] = []
    for (point_key, driver), medians in rounds.items():
        cold = cold_first_round(
            [one[0] for one in medians], [later for one in medians for later in one[1:]]
        )
        finding = check_cold_first_round(cold, metric=FIRST_BYTE, driver=driver)
        if finding is not None:
            message = f"{point_key}: {finding.message}"
            found.append(dataclasses.replace(finding, message=message))
    return found


def _rounds(trials: Sequence[TrialEvidence], *, confidence: float) -> list[Finding]:
    """Whether rounds drift inside trials, and whether the first is unlike the others.

    A first round that is certainly slow is told once, as cold.
    """
    cold = _present(_cold(trials))
    places = {(finding.message.partition(":")[0], finding.driver) for finding in cold}
    series: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for trial in trials:
        if trial.round_makespans_ns:
            key = (trial.spec.point.key, trial.spec.driver)
            series.setdefault(key, []).append(trial.round_makespans_ns)
    found: list[Finding | None] = [*cold]
    for (point_key, driver), makespans in series.items():
        trend = trials_trend(makespans, confidence=confidence)
        found.append(check_round_trend(trend, where=point_key, driver=driver))
        if (point_key, driver) not in places:
            first = first_rounds(makespans)
            found.append(check_first_round(first, where=point_key, driver=driver))
    return _present(found)


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
