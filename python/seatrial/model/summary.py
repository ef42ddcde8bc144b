"""What a run says, once analysed: every number of a report, and nothing that is not in one.

``seatrial.analysis`` makes a ``RunSummary`` from a run directory; ``seatrial.report`` only lays it
out. It is bounded: figures get thinned curves, never raw samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.finding import Finding
from seatrial.model.metric import Direction, Metric
from seatrial.model.plan import Point
from seatrial.model.scalar import Scalar

# History of the summary's JSON format:
# 1  first version
SUMMARY_SCHEMA_VERSION: Final = 1

# Stands in the place of a driver for the launcher's own floor.
FLOOR: Final = "floor"


class Verdict(StrEnum):
    """What may be said about a number against the baseline's."""

    # Better in the direction of the metric, beyond interval and noise floor.
    FASTER = "faster"
    SLOWER = "slower"
    # Within the noise floor, or not certain, and no large difference is possible.
    INDISTINGUISHABLE = "indistinguishable"
    # Not certain, and a large difference is not excluded either: too few blocks, or too unlike.
    UNRESOLVED = "unresolved"
    # It is the baseline itself.
    BASELINE = "baseline"
    # Between two runs: there was a number, and there is none any more.
    LOST = "lost"
    # There is no ratio, or the metric has no better direction.
    NOT_JUDGED = "not-judged"


class Status(StrEnum):
    """How far the repeats of a piece of work agree, or why there is no number."""

    STABLE = "stable"
    UNSURE = "stable?"
    UNSTABLE = "unstable"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


class Relation(StrEnum):
    """How a number stands to the one after it."""

    MORE = ">"
    BARELY_MORE = ">="
    UNRESOLVED = "?=?"
    BARELY_LESS = "<="
    LESS = "<"


class Statistic(StrEnum):
    """Which property of a sample an estimate is of."""

    P50 = "p50"
    P90 = "p90"
    P95 = "p95"
    P99 = "p99"
    P999 = "p99.9"
    # Of metrics that have one value a trial, and of all starts and stops.
    MEAN = "mean"
    # The largest value that was seen.
    MAX = "max"
    PROPORTION = "proportion"
    # Of a line through all counts: the increment, and what is there at count 0.
    SLOPE = "slope"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number of the comparison table."""

    bench: str
    point: Point
    # A driver's name, or FLOOR.
    driver: str
    metric: str
    statistic: Statistic
    estimate: Estimate | NotAvailable
    # Against the baseline at the same point; None for the baseline, the floor and statistics
    # which are not compared.
    ratio: Estimate | NotAvailable | None
    verdict: Verdict
    # Values in the sample and blocks they came from.
    n: int
    blocks_count: int
    # Values beyond Tukey's outer fences: counted, never dropped.
    outliers_count: int = 0
    # Codes of findings about this driver at this point that weigh on this metric, worst first.
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The distribution of a metric in few points, for figures."""

    bench: str
    point: Point
    driver: str
    metric: str
    quantiles: tuple[float, ...]
    values: tuple[float, ...]
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """One mark of a trend: a position on the axis and the estimate there."""

    x: float
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendLine:
    """A straight line fitted through the single values of a trend."""

    slope: Estimate
    fixed: Estimate
    determination_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How a metric follows one axis of a bench, other axes held."""

    bench: str
    driver: str
    metric: str
    statistic: Statistic
    # Name of the axis, such as "concurrency", and what the other axes were.
    axis: str
    held: Mapping[str, Scalar]
    points: tuple[TrendPoint, ...]
    line: TrendLine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePoint:
    """One mark of a reference: a position on the axis and another run's number there."""

    x: float
    point: float
    # None: a single reading, which has no interval.
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Numbers of another run, to stand beside a metric of this one."""

    # The other run's name and driver, such as "ae_data: rund".
    source: str
    # Of this run: the metric that they stand beside.
    metric: str
    # Of the other run: what they are. It may be defined otherwise, as the note says.
    foreign_metric: str
    axis: str
    held: Mapping[str, Scalar]
    points: tuple[ReferencePoint, ...]
    # How the definitions differ; empty where they do not.
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoursePoint:
    """What happened in one interval of a load."""

    # Its end, from the begin of the measure phase.
    since_start_ns: int
    # Correct replies that came in it.
    replies_rps: float
    # Of their response times; None where none came.
    response_ns_p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the load of one trial went, interval by interval."""

    bench: str
    point: Point
    driver: str
    trial_id: str
    points: tuple[CoursePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number of work inside of sandboxes, with everything that qualifies it."""

    point: Point
    driver: str
    metric: str
    # The piece of work that gives it, such as "randread".
    work: str
    status: Status
    # Codes of findings, as in ``Cell.marks``.
    marks: tuple[str, ...] = ()
    # Median, least and largest of the steady tries; None: none gave a number.
    value: float | None = None
    least: float | None = None
    most: float | None = None
    # Sample standard deviation over mean.
    variation_ratio: float | None = None
    # First touches, one a trial.
    first: tuple[float, ...] = ()
    # Steady tries that gave a number, and all of them.
    ok_count: int = 0
    tries_count: int = 0
    # Bytes that the host's device moved over those that the tool says it did, median; None: unknown
    # or not about files.
    device_ratio: float | None = None
    is_direct: bool = False
    # What connected sandbox and host.
    route: str | None = None
    # Why tries gave no number, the first reason.
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """The runtimes by one number, the worst first, with what is known between neighbours."""

    point: Point
    metric: str
    drivers: tuple[str, ...]
    # One fewer than drivers.
    relations: tuple[Relation, ...]
    # Those whose number is marked as one of a cache.
    cached: tuple[str, ...] = ()
    # {driver: why it has no place}
    unranked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A driver at a point where no trial was finished well: there is no number, and why."""

    point: Point
    driver: str
    # How its trials ended: a word of ``TrialStatus``, or "not-run".
    status: str
    # In a sentence; never empty.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSummary:
    """One driver of the run: what was measured, and how its trials ended."""

    name: str
    version: str | None
    is_baseline: bool
    # {status: how many trials}
    trials: Mapping[str, int]
    # Flags of the driver that were set for the run.
    flags: Mapping[str, str] = field(default_factory=dict)
    # Why trials are missing, one sentence each, without repetition.
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSummary:
    """One bench of the run."""

    name: str
    question: str
    # The metric that answers the question first.
    headline: str
    points: tuple[Point, ...]
    # Its metrics, in the order in which the bench declares them.
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodNote:
    """One paragraph of how the numbers were made."""

    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """Everything that may be printed or drawn about one run."""

    run_id: str
    name: str
    created: str
    baseline: str
    confidence: float
    blocks: int
    seed: int
    plan_hash: str
    trials_planned: int
    trials_finished: int
    # How the finished ones ended: of each status that there is, how many.
    trials_by_status: Mapping[str, int]
    drivers: tuple[DriverSummary, ...]
    benches: tuple[BenchSummary, ...]
    metrics: Mapping[str, Metric]
    cells: tuple[Cell, ...]
    distributions: tuple[Distribution, ...]
    trends: tuple[Trend, ...]
    findings: tuple[Finding, ...]
    # Versions of our own parts by name.
    versions: Mapping[str, str]
    # Facts about the machine as name and value, and the key that must agree to compare runs.
    fingerprint: Mapping[str, str]
    fingerprint_key: str
    # The request as it was written.
    experiment_toml: str
    method: tuple[MethodNote, ...]
    courses: tuple[Course, ...] = ()
    scores: tuple[Score, ...] = ()
    orderings: tuple[Ordering, ...] = ()
    references: tuple[Reference, ...] = ()
    gaps: tuple[Gap, ...] = ()
    schema_version: int = SUMMARY_SCHEMA_VERSION

    def score(self, *, point: Point, driver: str, metric: str) -> Score | None:
        """Give what qualifies a number; None for numbers that are not of work inside."""
        for score in self.scores:
            if (score.point.key, score.driver, score.metric) == (point.key, driver, metric):
                return score
        return None

    def cell(self, *, point: Point, driver: str, metric: str, statistic: Statistic) -> Cell | None:
        """Give one cell; None when nothing was measured there."""
        for cell in self.cells:
            if (cell.point.key, cell.driver, cell.metric, cell.statistic) == (
                point.key,
                driver,
                metric,
                statistic,
            ):
                return cell
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confounder:
    """A condition in which two sides differ beside what is compared."""

    # Such as "kernel", "snapshotter", "start.rounds" or "flag.platform".
    name: str
    before: str
    after: str
    # What it weighs on; None: everything.
    bench: str | None = None
    driver: str | None = None

    def weighs_on(self, bench: str, driver: str) -> bool:
        """Whether numbers of a bench on a driver were taken under it."""
        return self.bench in {None, bench} and self.driver in {None, driver}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One number in two runs."""

    bench: str
    point: Point
    driver: str
    metric: str
    unit: str
    direction: Direction
    statistic: Statistic
    before: Estimate | NotAvailable
    after: Estimate | NotAvailable
    # after over before
    ratio: Estimate | NotAvailable
    verdict: Verdict
    # What happened, in a sentence, where the ratio does not say it; else empty.
    explanation: str = ""
    # Chance of such a difference if nothing changed, by itself and by Holm's rule among all
    # comparisons; None where nothing can be told.
    p_value: float | None = None
    p_holm: float | None = None
    # The verdict that stands after Holm's correction.
    adjusted: Verdict = Verdict.NOT_JUDGED
    # Names of the conditions that differ although they are not what is compared.
    despite: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Two runs side by side."""

    before_run_id: str
    after_run_id: str
    changes: tuple[Change, ...]
    # What makes the comparison weaker than one inside a run.
    warnings: tuple[str, ...]
    # Points that only one of them has.
    unmatched: tuple[str, ...]
    # Conditions that differ; the comparison was asked for despite of them.
    confounders: tuple[Confounder, ...] = ()
    schema_version: int = SUMMARY_SCHEMA_VERSION

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Everything that became slower, worse in its direction, or impossible to measure."""
        return tuple(change for change in self.changes if change.verdict in _WORSE)

    @property
    def adjusted_regressions(self) -> tuple[Change, ...]:
        """Those of them that stand after Holm's correction for the number of comparisons."""
        return tuple(change for change in self.changes if change.adjusted in _WORSE)


_WORSE: Final = frozenset({Verdict.SLOWER, Verdict.LOST})
