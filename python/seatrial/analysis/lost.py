"""What an older run could measure and a newer one no longer can: the worst kind of regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.analysis.cells import location, location_statistic
from seatrial.benches.base import Group
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.metric import Direction, metric
from seatrial.model.summary import FLOOR, Change, Verdict
from seatrial.model.trial import TrialStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.analysis.evidence import Series, SeriesKey, TrialEvidence
    from seatrial.store.manifest import Manifest

#: The number that only successes have, by bench, the first one that the older run has. Others may
#: be missing without a failure, such as the time until memory settled.
MAIN_METRICS: Mapping[str, tuple[str, ...]] = {
    "start": ("start_first_byte_ns",),
    "load": ("response_time_ns", "service_time_ns"),
    "fleet": ("response_time_ns",),
    "rpc": ("rpc_rps",),
    "density": ("memory_pss_bytes", "memory_cgroup_bytes"),
}


def find_lost(
    changes: Iterable[Change],
    *,
    old: Mapping[SeriesKey, Series],
    manifest: Manifest,
    trials: Sequence[TrialEvidence],
) -> list[Change]:
    """One change for every point and driver that has lost its number through failures.

    Args:
        changes: What both runs have a sample of.
        old: The samples of the older run.
        manifest: Of the newer run: what it does not plan was not asked for and is not lost.
        trials: The trials of the newer run.
    """
    matched = {(one.point.key, one.driver, one.metric): one for one in changes}
    found: list[Change] = []
    for (point_key, driver), series in _main_series(old).items():
        own = [
            trial
            for trial in trials
            if (trial.spec.point.key, trial.spec.driver) == (point_key, driver)
        ]
        change = matched.get((point_key, driver, series.metric))
        reason = _why(own, series.metric, manifest.skipped_drivers.get(driver))
        if reason and (change is None or _is_reduced(change)):
            found.append(_lost(series, change, reason, manifest.plan.experiment.confidence))
    return found


def is_lost(change: Change, lost: Iterable[Change]) -> bool:
    """Whether a change is among the lost ones under the same name."""
    name = (change.point.key, change.driver, change.metric)
    return name in {(one.point.key, one.driver, one.metric) for one in lost}


def _main_series(old: Mapping[SeriesKey, Series]) -> dict[tuple[str, str], Series]:
    found: dict[tuple[str, str], Series] = {}
    ranks: dict[tuple[str, str], int] = {}
    for key, series in old.items():
        if key.driver == FLOOR or metric(key.metric).direction is Direction.NONE:
            continue
        names = MAIN_METRICS.get(series.bench, ())
        rank = names.index(key.metric) if key.metric in names else len(names)
        place = (key.point_key, key.driver)
        if rank < ranks.get(place, len(names) + 1):
            found[place], ranks[place] = series, rank
    return found


def _is_reduced(change: Change) -> bool:
    """Whether there was an estimate and too little is left for one."""
    return isinstance(change.before, Estimate) and isinstance(change.after, NotAvailable)


def _why(own: Sequence[TrialEvidence], name: str, skipped: str | None) -> str:
    """Why the number is missing; empty when no failure explains it."""
    if skipped is not None:
        return f"the driver was left out of the newer run: {skipped}"
    empty = [
        trial
        for trial in own
        if trial.status in {TrialStatus.FAILED, TrialStatus.UNSUPPORTED, TrialStatus.SKIPPED}
        or (trial.status is TrialStatus.OK and (name, Group.MEASURED) not in trial.samples)
    ]
    if not empty:
        return ""
    words = [trial.reason for trial in empty] + [
        finding.message for trial in empty for finding in trial.findings
    ]
    first = next((text for text in words if text), "")
    because = f"; first: {first}" if first else ""
    return f"{len(empty)} of {len(own)} trials of the newer run gave no {name}{because}"


def _lost(series: Series, change: Change | None, reason: str, confidence: float) -> Change:
    declared = metric(series.metric)
    nothing = NotAvailable(reason="n/a (lost)", n=0)
    return Change(
        bench=series.bench,
        point=series.point,
        driver=series.driver,
        metric=series.metric,
        unit=declared.unit,
        direction=declared.direction,
        statistic=location_statistic(series) if change is None else change.statistic,
        before=location(series, confidence=confidence) if change is None else change.before,
        after=nothing if change is None else change.after,
        ratio=nothing,
        verdict=Verdict.LOST,
        explanation=reason,
    )
