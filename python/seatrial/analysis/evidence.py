"""What the analysis looks at: samples of every trial, gathered by bench, point, driver and block.

Raw tables are read once, handed to each bench's pure ``derive`` and ``judge``, and let go, so that
memory holds samples only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seatrial.analysis.courses import course_of
from seatrial.analysis.tries import Try, tries_of
from seatrial.benches.base import Group
from seatrial.model.finding import Finding
from seatrial.model.plan import Point, TrialSpec
from seatrial.model.summary import FLOOR, Course
from seatrial.model.trial import TrialStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import polars as pl

    from seatrial.benches.base import Bench

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
#: The metric whose rounds are looked at one by one.
FIRST_BYTE = "start_first_byte_ns"
MAKESPAN = "start_makespan_ns"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEvidence:
    """One finished trial, reduced to what the analysis needs."""

    spec: TrialSpec
    status: TrialStatus
    reason: str | None
    findings: tuple[Finding, ...]
    samples: Mapping[tuple[str, Group], Floats]
    """Values by metric and group, in the order of measuring."""
    sentinel_ns: tuple[float, ...]
    """First-byte latency of each null start before the trial."""
    foreign_cpu_ratios: tuple[float, ...]
    steal_ratios: tuple[float, ...]
    """One value a timed window."""
    round_medians_ns: tuple[float, ...] = ()
    """Median first-byte latency of each round of starts that had a success, the first round first;
    empty when the first round had none, and for benches without rounds."""
    sample_blocks: Mapping[tuple[str, Group], Integers] = field(default_factory=dict)
    """The block of each value, for metrics of which one trial holds several blocks."""
    round_makespans_ns: tuple[float, ...] = ()
    """Makespan of each round of starts that came up whole, in the order of rounds."""
    course: Course | None = None
    """How its load went over time, if it had one."""
    tries: tuple[Try, ...] = ()
    """Of work inside of its sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All samples of one metric of one driver at one point."""

    bench: str
    point: Point
    driver: str
    """A driver's name, or FLOOR."""
    metric: str
    blocks: Mapping[int, Floats]
    """Samples by number of the block, ascending; no block is empty."""
    is_one_a_trial: bool
    """Whether no driver had more than one value in a trial here: the same for all of a metric's
    series at a point, so that one column of a table never mixes two statistics."""

    @property
    def pooled(self) -> Floats:
        """The samples of all blocks."""
        return np.concatenate(list(self.blocks.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesKey:
    """What names a series."""

    point_key: str
    driver: str
    metric: str


def reduce_trial(
    spec: TrialSpec,
    *,
    status: TrialStatus,
    reason: str | None,
    findings: Sequence[Finding],
    tables: Mapping[str, pl.DataFrame],
    bench: Bench,
) -> TrialEvidence:
    """Derives the samples of one trial and judges it, if it is valid."""
    samples: dict[tuple[str, Group], Floats] = {}
    sample_blocks: dict[tuple[str, Group], Integers] = {}
    judged: tuple[Finding, ...] = ()
    if status is TrialStatus.OK:
        for taken in bench.derive(tables, spec.point):
            values = np.asarray(taken.values, dtype=np.float64)
            if values.size:
                samples[taken.metric, taken.group] = values
                if taken.blocks is not None:
                    numbers = np.asarray(taken.blocks, dtype=np.int64)
                    sample_blocks[taken.metric, taken.group] = numbers
        judged = bench.judge(tables, spec.point)
    return TrialEvidence(
        spec=spec,
        status=status,
        reason=reason,
        findings=_without_repetition((*findings, *(_owned(found, spec) for found in judged))),
        samples=samples,
        sample_blocks=sample_blocks,
        sentinel_ns=_spans(tables.get("sentinel")),
        foreign_cpu_ratios=_column(tables.get("windows"), "foreign_cpu_ratio"),
        steal_ratios=_column(tables.get("windows"), "steal_ratio"),
        round_medians_ns=(
            _round_medians(tables.get("starts")) if (FIRST_BYTE, Group.MEASURED) in samples else ()
        ),
        round_makespans_ns=_values(samples, MAKESPAN),
        course=course_of(spec, tables) if status is TrialStatus.OK else None,
        tries=tries_of(spec, tables, status=status, reason=reason),
    )


def gather_series(trials: Iterable[TrialEvidence]) -> dict[SeriesKey, Series]:
    """Groups the samples; the floors of all drivers' trials in a block are one sample."""
    blocks: dict[SeriesKey, dict[int, list[Floats]]] = {}
    points: dict[str, Point] = {}
    longest: dict[tuple[str, str], int] = {}
    for trial in sorted(trials, key=lambda trial: trial.spec.index):
        point = trial.spec.point
        points[point.key] = point
        for (metric, group), values in trial.samples.items():
            driver = FLOOR if group is Group.FLOOR else trial.spec.driver
            key = SeriesKey(point_key=point.key, driver=driver, metric=metric)
            for block, members in _by_block(trial, (metric, group)).items():
                blocks.setdefault(key, {}).setdefault(block, []).append(members)
            longest[point.key, metric] = max(values.size, longest.get((point.key, metric), 0))
    return {
        key: Series(
            bench=points[key.point_key].bench,
            point=points[key.point_key],
            driver=key.driver,
            metric=key.metric,
            blocks={block: np.concatenate(parts) for block, parts in sorted(by_block.items())},
            is_one_a_trial=longest[key.point_key, key.metric] == 1,
        )
        for key, by_block in blocks.items()
    }


def _by_block(trial: TrialEvidence, key: tuple[str, Group]) -> dict[int, Floats]:
    values, numbers = trial.samples[key], trial.sample_blocks.get(key)
    if numbers is None:
        return {trial.spec.block: values}
    return {int(block): values[numbers == block] for block in np.unique(numbers)}


def _values(samples: Mapping[tuple[str, Group], Floats], metric: str) -> tuple[float, ...]:
    taken = samples.get((metric, Group.MEASURED))
    return () if taken is None else tuple(float(value) for value in taken)


def _owned(finding: Finding, spec: TrialSpec) -> Finding:
    return Finding(
        code=finding.code,
        severity=finding.severity,
        message=finding.message,
        evidence=finding.evidence,
        trial_id=finding.trial_id or spec.trial_id,
        driver=finding.driver or spec.driver,
    )


def _without_repetition(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    seen: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        seen.setdefault((finding.code, finding.message), finding)
    return tuple(seen.values())


def _spans(sentinel: pl.DataFrame | None) -> tuple[float, ...]:
    if sentinel is None:
        return ()
    spans = (sentinel["first_byte_at_ns"] - sentinel["due_at_ns"]).drop_nulls()
    return tuple(float(span) for span in spans.to_list())


def _round_medians(starts: pl.DataFrame | None) -> tuple[float, ...]:
    if starts is None:
        return ()
    measured = starts.filter(~starts["is_floor"])
    rounds = measured["round"].drop_nulls().unique().sort().to_list()
    medians: list[float] = []
    for number in rounds:
        members = measured.filter(
            (measured["round"] == number) & (measured["outcome"] == "ok")
        )  # fmt: skip - one condition a column
        median = (members["first_byte_at_ns"] - members["due_at_ns"]).median()
        if isinstance(median, int | float):
            medians.append(float(median))
        elif number == rounds[0]:
            return ()
    return tuple(medians)


def _column(table: pl.DataFrame | None, name: str) -> tuple[float, ...]:
    if table is None or name not in table.columns:
        return ()
    return tuple(float(value) for value in table[name].drop_nulls().to_list())
