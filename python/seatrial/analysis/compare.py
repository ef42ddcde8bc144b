"""Two runs side by side: what became faster, what slower, and how far that can be believed.

Inside one run trials are interleaved, so that the machine's moods cancel. Two runs are not: their
blocks do not belong together, so the errors of both add up, and the result says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.analysis.cells import SHARE_BOUNDS, location, location_statistic
from seatrial.analysis.evidence import gather_series
from seatrial.analysis.lost import find_lost, is_lost
from seatrial.analysis.summarise import read_trials
from seatrial.errors import ConfigError
from seatrial.model.codec import encode
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.experiment import BENCHES
from seatrial.model.metric import Direction, metric
from seatrial.model.summary import FLOOR, Change, RunComparison, Statistic, Verdict
from seatrial.stats.dependence import student_quantile
from seatrial.stats.ratio import bootstrap_error, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.analysis.evidence import Series
    from seatrial.store.manifest import Manifest
    from seatrial.store.run_store import RunStore

NOT_INTERLEAVED = (
    "the runs are not interleaved: a machine that drifts between them looks like a difference; "
    "to compare two versions, put both into one run"
)


def compare_runs(before: RunStore, after: RunStore, *, is_forced: bool = False) -> RunComparison:
    """Compares what both runs measured at the same point on the same driver.

    Args:
        before: The older run.
        after: The newer run.
        is_forced: Compare although the machine or the flags differ; each difference is a warning.

    Raises:
        ConfigError: The runs differ in machine, flags or settings, and it is not forced.
    """
    obstacles = differences(before.manifest, after.manifest)
    if obstacles and not is_forced:
        raise ConfigError(
            f"runs {before.manifest.run_id} and {after.manifest.run_id} are not comparable: "
            + "; ".join(obstacles),
            hint="compare runs of the same request on the same machine, or give --force",
            code="not-comparable",
        )
    new_trials = read_trials(after)
    old, new = gather_series(read_trials(before)), gather_series(new_trials)
    confidence = before.manifest.plan.experiment.confidence
    changes = [
        _change(old[key], new[key], confidence=confidence)
        for key in old
        if key in new and key.driver != FLOOR
    ]
    lost = find_lost(changes, old=old, manifest=after.manifest, trials=new_trials)
    gone = {(one.point.key, one.driver) for one in lost}
    kept = [one for one in changes if not is_lost(one, lost)]
    return RunComparison(
        before_run_id=before.manifest.run_id,
        after_run_id=after.manifest.run_id,
        changes=(*lost, *kept),
        warnings=(
            NOT_INTERLEAVED,
            *_by_chance(kept, confidence=confidence),
            *obstacles,
            *_version_changes(before, after),
            *_gaps(before, after),
        ),
        unmatched=tuple(
            sorted(
                {
                    f"{key.driver}: {key.point_key}"
                    for key in old.keys() ^ new.keys()
                    if (key.point_key, key.driver) not in gone
                }
            )
        ),
    )


def differences(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """What forbids a comparison: another machine, other flags, other settings of a bench."""
    found: list[str] = []
    facts = before.fingerprint.differences(after.fingerprint)
    if facts:
        found.append(f"the machines differ in {', '.join(facts)}")
    shared = set(before.plan.drivers) & set(after.plan.drivers)
    for driver in sorted(shared):
        flags = [dict(one.driver_flags.get(driver, {})) for one in (before, after)]
        if flags[0] != flags[1]:
            found.append(f"{driver} ran with flags {flags[0]} before and {flags[1]} after")
    ours, theirs = before.plan.experiment, after.plan.experiment
    for name in ("network", *BENCHES):
        old, new = getattr(ours, name), getattr(theirs, name)
        if old is not None and new is not None and encode(old) != encode(new):
            found.append(f"the settings of {name} differ")
    return tuple(found)


def _by_chance(changes: Sequence[Change], *, confidence: float) -> tuple[str, ...]:
    """How many of the comparisons may differ although nothing changed."""
    judged = sum(change.verdict is not Verdict.NOT_JUDGED for change in changes)
    expected = judged * (1 - confidence)
    if expected < 1:
        return ()
    text = (
        f"{judged} comparisons at {confidence:.0%} confidence: about {expected:.0f} of them may "
        "differ by chance; repeat a run before acting on a single one"
    )
    return (text,)


def _gaps(before: RunStore, after: RunStore) -> tuple[str, ...]:
    counts = [
        (one.manifest.run_id, len(one.finished_trials()), len(one.manifest.plan.trials))
        for one in (before, after)
    ]
    return tuple(
        f"run {run_id} is not complete: {finished} of {planned} trials are finished"
        for run_id, finished, planned in counts
        if finished < planned
    )


def _version_changes(before: RunStore, after: RunStore) -> tuple[str, ...]:
    old, new = before.manifest.versions, after.manifest.versions
    changed = [
        f"{driver} was {old.drivers[driver]} and is {new.drivers[driver]}"
        for driver in sorted(set(old.drivers) & set(new.drivers))
        if old.drivers[driver] != new.drivers[driver]
    ]
    if (old.seatrial, old.core) != (new.seatrial, new.core):
        changed.append(f"seatrial was {old.seatrial} and is {new.seatrial}")
    return tuple(changed)


def _change(old: Series, new: Series, *, confidence: float) -> Change:
    declared = metric(old.metric)
    statistics = {location_statistic(one) for one in (old, new)}
    statistic = statistics.pop() if len(statistics) == 1 else Statistic.P50
    before, after = (
        location(one, confidence=confidence, statistic=statistic) for one in (old, new)
    )
    ratio = _unpaired_ratio(old, new, confidence=confidence)
    if statistic is Statistic.PROPORTION:
        ratio = _proportion_ratio(before, after)
    judged, explanation = verdict(ratio, direction=declared.direction), ""
    if old.metric in SHARE_BOUNDS and judged in {Verdict.NOT_JUDGED, Verdict.INDISTINGUISHABLE}:
        judged, explanation = _judge_shares(
            before, after, direction=declared.direction, otherwise=judged
        )
    return Change(
        bench=old.bench,
        point=old.point,
        driver=old.driver,
        metric=old.metric,
        unit=declared.unit,
        direction=declared.direction,
        statistic=statistic,
        before=before,
        after=after,
        ratio=ratio,
        verdict=judged,
        explanation=explanation,
    )


def _judge_shares(
    before: Estimate | NotAvailable,
    after: Estimate | NotAvailable,
    *,
    direction: Direction,
    otherwise: Verdict,
) -> tuple[Verdict, str]:
    """Shares differ when their intervals do not meet: a ratio to a share of zero says nothing."""
    if isinstance(before, NotAvailable) or isinstance(after, NotAvailable):
        return otherwise, ""
    if direction is Direction.NONE or not (after.high < before.low or after.low > before.high):
        return otherwise, ""
    is_better = (after.point > before.point) == (direction is Direction.HIGHER)
    said = f"{before.point:.3%} before, {after.point:.3%} after; the intervals do not meet"
    return Verdict.FASTER if is_better else Verdict.SLOWER, said


def _unpaired_ratio(old: Series, new: Series, *, confidence: float) -> Estimate | NotAvailable:
    """Ratio of medians from blocks that do not belong together.

    The errors of both sides add in squares; Student's t takes the degrees of freedom of the run
    with fewer blocks, which is on the safe side (Welch's are never fewer).
    """
    count = min(len(old.blocks), len(new.blocks))
    if count < 2:  # noqa: PLR2004 - one block has no spread
        return NotAvailable(reason="n/a (need >= 2 blocks)", n=count, n_needed=2)
    bottom, top = float(np.median(old.pooled)), float(np.median(new.pooled))
    errors = [bootstrap_error(list(one.blocks.values())) for one in (old, new)]
    if bottom <= 0 or top <= 0 or None in errors:
        return NotAvailable(reason="n/a (a median is not positive)", n=count)
    error = math.hypot(*(one for one in errors if one is not None))
    half = student_quantile(confidence, degrees=count - 1) * error
    point = top / bottom
    return Estimate(
        point=point,
        low=point * math.exp(-half),
        high=point * math.exp(half),
        confidence=confidence,
        n=count,
        method="unpaired block bootstrap of the ratio of medians, Student t",
        unit="ratio",
    )


def _proportion_ratio(
    before: Estimate | NotAvailable, after: Estimate | NotAvailable
) -> Estimate | NotAvailable:
    """Ratio of two shares, from the ends of their intervals: wide, and never too narrow."""
    if isinstance(before, NotAvailable) or isinstance(after, NotAvailable):
        return NotAvailable(reason="n/a (no starts)", n=0)
    if before.low <= 0 or after.point <= 0:
        return NotAvailable(reason="n/a (a share of zero)", n=before.n)
    return Estimate(
        point=after.point / before.point,
        low=after.low / before.high,
        high=after.high / before.low,
        confidence=before.confidence,
        n=min(before.n, after.n),
        method="ends of Clopper-Pearson intervals",
        unit="ratio",
    )
