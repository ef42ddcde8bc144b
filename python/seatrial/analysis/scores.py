"""Status, marks and order of everything that is measured inside of sandboxes."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from typing import TYPE_CHECKING, Final

from seatrial.analysis.amplification import paired_ratio
from seatrial.analysis.evidence import SeriesKey
from seatrial.analysis.tries import ALL_WORK, INSIDE
from seatrial.benches.attempts import Outcome
from seatrial.benches.inside_metrics import MEASURED, inside_test, works_of
from seatrial.benches.inside_probes import METRIC_OF
from seatrial.model.estimate import NotAvailable
from seatrial.model.experiment import InsideTest
from seatrial.model.finding import Finding, Severity
from seatrial.model.metric import Direction, metric
from seatrial.model.summary import Cell, Ordering, Relation, Score, Statistic, Status, Verdict
from seatrial.stats.status import (
    DIRECT_DEVICE_RATIO_MIN,
    count_deviants,
    exceeds_host,
    is_cached,
    relation,
    status_of,
    variation_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.analysis.evidence import Series, TrialEvidence
    from seatrial.analysis.tries import Try
    from seatrial.model.experiment import InsideSettings
    from seatrial.model.plan import Plan, Point

CACHED: Final = "cached"
DEVICE_UNKNOWN: Final = "device-unknown"
EXCEEDS_HOST: Final = "exceeds-host"
OUTLIERS: Final = "outliers"
NO_BOOKS: Final = "no books of it are kept here"
#: Work without direct I/O that is about the device all the same.
DEVICE_WORKS: Final = frozenset({"cold-read", "sync-write"})
LOCATIONS: Final = frozenset({Statistic.P50, Statistic.MEAN})


def build_scores(
    plan: Plan, trials: Sequence[TrialEvidence], cells: Iterable[Cell]
) -> tuple[Score, ...]:
    """One score a number of the bench ``inside``, in the order of its tables."""
    settings = plan.experiment.inside
    if settings is None:
        return ()
    tries: dict[tuple[str, str], list[Try]] = {}
    for trial in trials:
        tries.setdefault((trial.spec.point.key, trial.spec.driver), []).extend(trial.tries)
    plain = [
        _score(point, driver, work, name, tries.get((point.key, driver), []))
        for point in plan.points
        if point.bench == INSIDE
        for driver in plan.drivers
        for work, names in _measured(point, settings).items()
        for name in names
    ]
    return _marked(plain, cells, baseline=plan.experiment.baseline)


def mark_scored(cells: Iterable[Cell], scores: Iterable[Score]) -> tuple[Cell, ...]:
    """The cells with the marks of their scores, and a cell for each number that there is not."""
    known = {(score.point.key, score.driver, score.metric): score for score in scores}
    marked: list[Cell] = []
    seen: set[tuple[str, str, str]] = set()
    for cell in cells:
        key = (cell.point.key, cell.driver, cell.metric)
        seen.add(key)
        score = known.get(key)
        if score is None:
            marked.append(cell)
            continue
        estimate = cell.estimate
        if isinstance(estimate, NotAvailable) and cell.statistic in LOCATIONS:
            # Too few for an interval, but there is a median, which is shown without one.
            estimate = dataclasses.replace(estimate, point=score.value)
        verdict = cell.verdict
        if is_misleading(score) and verdict is not Verdict.BASELINE:
            verdict = Verdict.NOT_JUDGED  # a number of memory is marked, and never praised
        marks = (*cell.marks, *score.marks)
        marked.append(dataclasses.replace(cell, estimate=estimate, verdict=verdict, marks=marks))
    for key, score in known.items():
        if key not in seen and score.status is not Status.NOT_RUN:
            marked.append(_empty_cell(score))
    return tuple(marked)


def is_misleading(score: Score) -> bool:
    """Whether a number that is meant to be the device's is one of memory."""
    return CACHED in score.marks and (score.is_direct or score.work in DEVICE_WORKS)


def build_orderings(
    scores: Sequence[Score],
    cells: Iterable[Cell],
    series: Mapping[SeriesKey, Series],
    *,
    confidence: float,
    seed: int,
) -> tuple[Ordering, ...]:
    """One ordering for each number that two runtimes have and that has a better direction.

    Runtimes are put in order by the numbers that the tables show.
    """
    shown = {
        (cell.point.key, cell.driver, cell.metric): cell.estimate.point
        for cell in cells
        if cell.statistic in LOCATIONS
    }
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in (_as_shown(one, shown) for one in scores):
        if metric(score.metric).direction is not Direction.NONE:
            groups.setdefault((score.point.key, score.metric), []).append(score)
    found = (
        _ordering(members, series, confidence=confidence, seed=seed) for members in groups.values()
    )
    return tuple(one for one in found if one is not None)


def judge_scores(scores: Iterable[Score]) -> tuple[Finding, ...]:
    """Findings about numbers that mislead and about tries that gave none."""
    return (*_cached_findings(scores), *_exceeding(scores), *_failures(scores), *_skips(scores))


def _measured(point: Point, settings: InsideSettings) -> Mapping[str, tuple[str, ...]]:
    test = inside_test(point)
    if test is InsideTest.PROBES:
        return {probe: (METRIC_OF[probe],) for probe in settings.probes}
    return {work: MEASURED[test][work] for work in works_of(point, settings)}


def _score(point: Point, driver: str, work: str, name: str, tries: Iterable[Try]) -> Score:
    own = [one for one in tries if one.work in {work, ALL_WORK}]
    # What is skipped was not tried even once, so its only row stands for all.
    steady = [one for one in own if not one.is_first or one.outcome is Outcome.SKIPPED]
    values = [one.readings[name] for one in steady if name in one.readings]
    lost = [one for one in steady if name not in one.readings]
    ratios = [one.device_ratios[name] for one in steady if name in one.device_ratios]
    counts = {
        outcome: sum(one.outcome is outcome for one in lost)
        for outcome in (Outcome.UNSUPPORTED, Outcome.SKIPPED)
    }
    # Work that was done and lacks this number: the machine or the driver keeps no such books.
    counts[Outcome.UNSUPPORTED] += sum(one.outcome is Outcome.OK for one in lost)
    status = status_of(
        values,
        unsupported_count=counts[Outcome.UNSUPPORTED],
        skipped_count=counts[Outcome.SKIPPED],
        failed_count=len(lost) - sum(counts.values()),
    )
    is_direct = any(one.is_direct for one in steady)
    marks = [CACHED] if _looks_cached(ratios, is_direct=is_direct) else []
    if values and not ratios and any(one.has_files for one in steady):
        marks.append(DEVICE_UNKNOWN)
    if count_deviants(values):
        marks.append(OUTLIERS)
    return Score(
        point=point,
        driver=driver,
        metric=name,
        work=work,
        status=status,
        marks=tuple(marks),
        value=statistics.median(values) if values else None,
        least=min(values, default=None),
        most=max(values, default=None),
        variation_ratio=variation_ratio(values),
        first=tuple(one.readings[name] for one in own if one.is_first and name in one.readings),
        ok_count=len(values),
        tries_count=len(steady) - counts[Outcome.SKIPPED],
        device_ratio=statistics.median(ratios) if ratios else None,
        is_direct=is_direct,
        route=next((one.route for one in steady if one.route), None),
        reason=next((one.reason for one in lost if one.reason), NO_BOOKS if lost else None),
    )


def _looks_cached(ratios: Sequence[float], *, is_direct: bool) -> bool:
    middle = statistics.median(ratios) if ratios else None
    return is_cached(device_ratio=middle, is_direct=is_direct)


def _marked(scores: Sequence[Score], cells: Iterable[Cell], *, baseline: str) -> tuple[Score, ...]:
    """The scores with the marks that need the host's numbers beside them."""
    hosts = {(one.point.key, one.metric): one for one in scores if one.driver == baseline}
    located = {
        (cell.point.key, cell.driver, cell.metric): cell.estimate
        for cell in cells
        if cell.statistic in LOCATIONS
    }
    none = NotAvailable(reason="n/a", n=0)
    marked: list[Score] = []
    for score in scores:
        host = hosts.get((score.point.key, score.metric))
        added: list[str] = []
        if host is not None and host is not score:
            if CACHED not in score.marks and _beats_device(score, host):
                added.append(CACHED)
            measured, reference = (
                located.get((score.point.key, name, score.metric), none)
                for name in (score.driver, baseline)
            )
            direction = metric(score.metric).direction
            is_explained = CACHED in (*score.marks, *added)
            if not is_explained and exceeds_host(measured, reference, direction=direction):
                added.append(EXCEEDS_HOST)
        marked.append(dataclasses.replace(score, marks=(*score.marks, *added)))
    return tuple(marked)


def _beats_device(score: Score, host: Score) -> bool:
    """Tell whether a rate is above what a device can give, by what it gave the host."""
    is_ceiling = (
        host.device_ratio is not None
        and host.device_ratio >= DIRECT_DEVICE_RATIO_MIN
        and CACHED not in host.marks
    )
    ceiling = host.value if is_ceiling else None
    return is_cached(device_ratio=None, is_direct=False, value=score.value, ceiling=ceiling)


def _empty_cell(score: Score) -> Cell:
    reason = f"{score.status}: {score.reason}" if score.reason else score.status.value
    return Cell(
        bench=INSIDE,
        point=score.point,
        driver=score.driver,
        metric=score.metric,
        statistic=Statistic.P50,
        estimate=NotAvailable(reason=reason, n=score.ok_count),
        ratio=None,
        verdict=Verdict.NOT_JUDGED,
        n=score.ok_count,
        blocks_count=0,
        marks=score.marks,
    )


def _as_shown(score: Score, shown: Mapping[tuple[str, str, str], float | None]) -> Score:
    point = shown.get((score.point.key, score.driver, score.metric))
    if score.value is None or point is None:
        return score
    return dataclasses.replace(score, value=point)


def _ordering(
    members: Sequence[Score],
    series: Mapping[SeriesKey, Series],
    *,
    confidence: float,
    seed: int,
) -> Ordering | None:
    point, name = members[0].point, members[0].metric
    cached = [one.driver for one in members if CACHED in one.marks]
    # Numbers of a cache and numbers of a device are not numbers of the same thing.
    is_about_device = any(one.is_direct for one in members) or members[0].work in DEVICE_WORKS
    valued_count = sum(one.value is not None for one in members)
    leaves_out = is_about_device and 0 < len(cached) < valued_count
    unranked: dict[str, str] = {}
    ranked: list[Score] = []
    for one in members:
        if one.value is None:
            unranked[one.driver] = one.status.value
        elif leaves_out and one.driver in cached:
            unranked[one.driver] = CACHED
        else:
            ranked.append(one)
    if len(ranked) + len(unranked) < 2 or not ranked:  # noqa: PLR2004 - one alone has no order
        return None
    is_lower = metric(name).direction is Direction.LOWER
    ranked.sort(key=lambda one: one.value or 0.0, reverse=is_lower)
    keys = [SeriesKey(point_key=point.key, driver=one.driver, metric=name) for one in ranked]
    relations: list[Relation] = []
    for left, right in itertools.pairwise(keys):
        pair = series.get(left), series.get(right)
        if pair[0] is None or pair[1] is None:
            relations.append(Relation.UNRESOLVED)
            continue
        ratio = paired_ratio(pair[0].blocks, pair[1].blocks, confidence=confidence, seed=seed)
        relations.append(relation(ratio))
    return Ordering(
        point=point,
        metric=name,
        drivers=tuple(one.driver for one in ranked),
        relations=tuple(relations),
        cached=tuple(cached),
        unranked=unranked,
    )


def _cached_findings(scores: Iterable[Score]) -> list[Finding]:
    """Work on the device that never reached it; that buffered work does not is no finding."""
    found: list[Finding] = []
    for one in scores:
        if is_misleading(one) and one.value is not None:
            share = "an unknown share" if one.device_ratio is None else f"{one.device_ratio:.0%}"
            what = "direct I/O was accepted, but" if one.is_direct else "it is about the disk, but"
            found.append(
                Finding(
                    code=CACHED,
                    severity=Severity.WARNING,
                    message=f"{one.point.key}, {one.work}: {what} the host's device moved {share} "
                    f"of its bytes: {one.metric} is a number of memory",
                    evidence={"device_ratio": one.device_ratio or 0.0, "metric": one.metric},
                    driver=one.driver,
                )
            )
    return found


def _exceeding(scores: Iterable[Score]) -> list[Finding]:
    return [
        Finding(
            code=EXCEEDS_HOST,
            severity=Severity.WARNING,
            message=f"{one.point.key}, {one.work}: {one.metric} is better than the host's by more "
            "than a quarter; find out what it does not do before praising it",
            evidence={"metric": one.metric, "value": one.value or 0.0},
            driver=one.driver,
        )
        for one in scores
        if EXCEEDS_HOST in one.marks
    ]


def _failures(scores: Iterable[Score]) -> list[Finding]:
    found: dict[tuple[str, str, str], Finding] = {}
    for one in scores:
        lost = one.tries_count - one.ok_count
        if lost <= 0 or one.status is Status.SKIPPED:
            continue
        is_none = one.status is Status.UNSUPPORTED
        found.setdefault(
            (one.point.key, one.driver, one.work),
            Finding(
                code="tries-failed",
                severity=Severity.INFO if is_none else Severity.WARNING,
                message=f"{one.point.key}, {one.work}: {one.status}, {lost} of {one.tries_count} "
                f"tries gave no number: {one.reason or 'it was not read'}",
                evidence={"failed_count": lost, "tries_count": one.tries_count},
                driver=one.driver,
            ),
        )
    return list(found.values())


def _skips(scores: Iterable[Score]) -> list[Finding]:
    """One finding a driver and reason, with everything that was skipped for it."""
    works: dict[tuple[str, str], dict[str, None]] = {}
    for one in scores:
        if one.status is Status.SKIPPED:
            test = str(one.point.values.get("test", one.point.bench))
            works.setdefault((one.driver, one.reason or "skipped"), {})[test] = None
    return [
        Finding(
            code="skipped",
            severity=Severity.INFO,
            message=f"{', '.join(tests)}: {reason}",
            driver=driver,
        )
        for (driver, reason), tests in works.items()
    ]
