"""Two runs side by side: what became faster, what slower, and how far that can be believed.

Inside one run trials are interleaved, so that the machine's moods cancel. Two runs are not: their
blocks do not belong together, so the errors of both add up, and the result says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from seatrial.analysis.cells import (
    SHARE_BOUNDS,
    block_means,
    is_foreign_mean,
    location,
    location_statistic,
)
from seatrial.analysis.conditions import confounders
from seatrial.analysis.evidence import gather_series
from seatrial.analysis.lost import find_lost, is_lost
from seatrial.analysis.multiplicity import adjusted, by_chance, p_value
from seatrial.analysis.summarise import read_trials
from seatrial.errors import ConfigError
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.metric import Direction, metric
from seatrial.model.summary import Change, Confounder, RunComparison, Statistic, Verdict
from seatrial.stats.dependence import student_quantile
from seatrial.stats.ratio import bootstrap_error, verdict
from seatrial.stats.unpaired import mean_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.analysis.evidence import Series, SeriesKey, TrialEvidence
    from seatrial.store.manifest import Manifest
    from seatrial.store.run_store import RunStore

#: Verdicts that what shares say of themselves may change.
NOT_DIFFERENT = frozenset({Verdict.NOT_JUDGED, Verdict.INDISTINGUISHABLE, Verdict.UNRESOLVED})
NOT_INTERLEAVED = (
    "the runs are not interleaved: a machine that drifts between them looks like a difference; "
    "to compare two versions, put both into one run"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a comparison was asked for."""

    pairs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Drivers of the older run by those of the newer that they stand against; empty: each against
    its own name."""
    despite: frozenset[str] = frozenset()
    """Conditions that may differ; the numbers under them are marked."""
    factors: frozenset[str] = frozenset()
    """Conditions that differ on purpose: they are what is compared, and mark nothing."""
    is_forced: bool = False
    """Whether any condition may differ."""


def compare_runs(
    before: RunStore, after: RunStore, *, is_forced: bool = False, terms: Terms | None = None
) -> RunComparison:
    """Compares what both runs measured at the same point on the same driver.

    Args:
        before: The older run.
        after: The newer run.
        is_forced: Compare although conditions differ; each difference is a warning and a mark.
        terms: What else is asked for.

    Raises:
        ConfigError: Conditions differ that nobody named, a name is of none, or a driver of a pair
            is not in its run.
    """
    terms = terms or Terms(is_forced=is_forced)
    manifests = before.manifest, after.manifest
    pairs = _pairs(*manifests, terms)
    unequal = _accepted(*manifests, confounders(*manifests, pairs=pairs), terms)
    labels = {new: old if old == new else f"{old} -> {new}" for old, new in pairs.items()}
    new_trials = read_trials(after)
    old, new = _paired_series(read_trials(before), new_trials, pairs)
    confidence = before.manifest.plan.experiment.confidence
    changes = [
        _under(_change(old[key], new[key], confidence=confidence), unequal)
        for key in old
        if key in new
    ]
    lost = find_lost(changes, old=old, manifest=after.manifest, trials=new_trials)
    kept = [one for one in changes if not is_lost(one, lost)]
    told = [
        dataclasses.replace(one, driver=labels[one.driver])
        for one in adjusted([*lost, *kept], confidence=confidence)
    ]
    return RunComparison(
        before_run_id=before.manifest.run_id,
        after_run_id=after.manifest.run_id,
        changes=tuple(told),
        warnings=(
            *_not_interleaved(before, after),
            *by_chance(told, confidence=confidence),
            *_grouped(unequal),
            *_version_changes(before, after, pairs),
            *_gaps(before, after),
        ),
        unmatched=_unmatched(old, new, lost),
        confounders=unequal,
    )


def _paired_series(
    before: Sequence[TrialEvidence], after: Sequence[TrialEvidence], pairs: Mapping[str, str]
) -> tuple[dict[SeriesKey, Series], dict[SeriesKey, Series]]:
    """The series of drivers that stand against each other, under the newer run's names."""
    old = {
        dataclasses.replace(key, driver=pairs[key.driver]): dataclasses.replace(
            one, driver=pairs[key.driver]
        )
        for key, one in gather_series(before).items()
        if key.driver in pairs
    }
    new = {key: one for key, one in gather_series(after).items() if key.driver in pairs.values()}
    return old, new


def _unmatched(
    old: Mapping[SeriesKey, Series], new: Mapping[SeriesKey, Series], lost: Sequence[Change]
) -> tuple[str, ...]:
    """What only one run has, but for what the newer one lost, which is a change."""
    gone = {(one.point.key, one.driver) for one in lost}
    shared = {(key.point_key, key.driver) for key in old.keys() & new.keys()}
    alone: dict[str, set[str]] = {}
    for key in old.keys() ^ new.keys():
        place = key.point_key, key.driver
        if place not in gone:
            metrics = alone.setdefault(f"{key.driver}: {key.point_key}", set())
            # Of a point that is in both, only some numbers are alone.
            metrics |= {key.metric} if place in shared else set()
    return tuple(
        f"{place}: {', '.join(sorted(metrics))}" if metrics else place
        for place, metrics in sorted(alone.items())
    )


def _pairs(before: Manifest, after: Manifest, terms: Terms) -> dict[str, str]:
    """Which driver stands against which: the older run's by the newer's."""
    sides = before.plan.drivers, after.plan.drivers
    for names, known, run_id in (
        (terms.pairs.keys(), sides[0], before.run_id),
        (terms.pairs.values(), sides[1], after.run_id),
    ):
        strange = [name for name in names if name not in known]
        if strange:
            raise ConfigError(
                f"--pair: run {run_id} has no driver {strange[0]}; expected one of: "
                f"{', '.join(known)}",
                hint="--pair A=B stands driver A of the older run against B of the newer",
                code="pair-unknown",
            )
    if terms.pairs:
        return dict(terms.pairs)
    return {name: name for name in (*sides[0], *sides[1])}


def _accepted(
    before: Manifest, after: Manifest, found: Sequence[Confounder], terms: Terms
) -> tuple[Confounder, ...]:
    """What differs beside what is compared, if all of that was named."""
    names = {one.name for one in found}
    strange = sorted((terms.despite | terms.factors) - names)
    if strange:
        raise ConfigError(
            f"nothing called {strange[0]} differs between {before.run_id} and {after.run_id}; "
            f"what differs: {', '.join(sorted(names)) or 'nothing'}",
            hint="leave it out of --despite and --factor",
            code="despite-unknown",
        )
    unequal = tuple(one for one in found if one.name not in terms.factors)
    refused = [one for one in unequal if one.name not in terms.despite]
    if refused and not terms.is_forced:
        raise ConfigError(
            f"runs {before.run_id} and {after.run_id} are not comparable: "
            + "; ".join(_grouped(refused)),
            hint="compare runs of the same request on the same machine; or accept a difference "
            "with --despite NAME, name what is compared with --factor NAME, accept all with "
            "--force",
            code="not-comparable",
        )
    return unequal


def _grouped(found: Sequence[Confounder]) -> tuple[str, ...]:
    """One sentence for the machine, one for each bench's settings, one for each driver."""
    groups: dict[tuple[str | None, str | None], list[Confounder]] = {}
    for one in found:
        groups.setdefault((one.bench, one.driver), []).append(one)
    texts: list[str] = []
    for (bench, driver), members in groups.items():
        said = ", ".join(f"{one.name} ({one.before} before, {one.after} after)" for one in members)
        if bench is None and driver is None:
            texts.append(f"the machines differ in {said}")
        elif driver is None:
            texts.append(f"the settings of {bench} differ: {said}")
        else:
            place = "" if bench is None else f" in {bench}"
            texts.append(f"the conditions of {driver}{place} differ: {said}")
    return tuple(texts)


def _under(change: Change, unequal: Sequence[Confounder]) -> Change:
    """The change with the names of what else differed for it."""
    names = {
        one.name: None
        for one in unequal
        if one.bench in {None, change.bench}
        and (one.driver is None or one.driver.rpartition(" -> ")[2] == change.driver)
    }
    return dataclasses.replace(change, despite=tuple(names)) if names else change


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


def _not_interleaved(before: RunStore, after: RunStore) -> tuple[str, ...]:
    is_one = before.manifest.run_id == after.manifest.run_id
    return () if is_one else (NOT_INTERLEAVED,)


def _version_changes(
    before: RunStore, after: RunStore, pairs: Mapping[str, str]
) -> tuple[str, ...]:
    """Drivers that stand against themselves; that two others differ is what is compared."""
    old, new = before.manifest.versions, after.manifest.versions
    changed = [
        f"{driver} was {old.drivers[driver]} and is {new.drivers[driver]}"
        for driver in sorted(set(old.drivers) & set(new.drivers))
        if old.drivers[driver] != new.drivers[driver] and pairs.get(driver) == driver
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
    if is_foreign_mean(old.metric):
        ratio = mean_ratio_interval(block_means(new), block_means(old), confidence=confidence)
    else:
        ratio = _unpaired_ratio(old, new, confidence=confidence)
    if statistic is Statistic.PROPORTION:
        ratio = _proportion_ratio(before, after)
    judged, explanation = verdict(ratio, direction=declared.direction), ""
    if old.metric in SHARE_BOUNDS and judged in NOT_DIFFERENT:
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
        explanation=explanation or _single_readings(before, after),
        p_value=p_value(old, new, ratio),
    )


def _single_readings(before: Estimate | NotAvailable, after: Estimate | NotAvailable) -> str:
    """What can be said of two numbers without an interval: how far they are apart, and no more."""
    points = [one.point for one in (before, after) if isinstance(one, NotAvailable)]
    if len(points) < 2 or not points[0] or points[1] is None:  # noqa: PLR2004 - both sides
        return ""
    return f"{points[1] / points[0] - 1:+.1%}, one reading on each side: no interval, not judged"


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
