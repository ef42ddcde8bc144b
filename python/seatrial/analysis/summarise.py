"""Reads a run directory and says everything that may be said about it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from seatrial.analysis.cells import build_cells
from seatrial.analysis.conditions import confounded_findings, inside_run, mark_confounded
from seatrial.analysis.evidence import TrialEvidence, gather_series, reduce_trial
from seatrial.analysis.figures import build_distributions, build_trends
from seatrial.analysis.gaps import find_gaps
from seatrial.analysis.judge import judge_run
from seatrial.analysis.marks import mark_cells
from seatrial.analysis.method import method_notes
from seatrial.analysis.scores import build_orderings, build_scores, judge_scores, mark_scored
from seatrial.model.columns import TABLES
from seatrial.model.finding import Finding, Severity
from seatrial.model.metric import metric
from seatrial.model.summary import FLOOR, BenchSummary, DriverSummary, RunSummary
from seatrial.model.trial import TrialStatus
from seatrial.store.journal import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import polars as pl

    from seatrial.analysis.evidence import Series, SeriesKey
    from seatrial.benches.base import Bench
    from seatrial.model.metric import Metric
    from seatrial.model.plan import Plan
    from seatrial.store.manifest import Manifest
    from seatrial.store.run_store import RunStore

    BenchOf = Callable[[str], Bench]


def summarise(store: RunStore, *, bench_of: BenchOf | None = None) -> RunSummary:
    """Analyses a run, complete or not.

    Args:
        store: The run directory, opened.
        bench_of: Finds a bench by name; the registry of benches unless a test brings its own.

    Raises:
        StoreError: A table cannot be read.
        ConfigError: The run holds a bench that this version does not know.
    """
    find = bench_of or _registered
    manifest = store.manifest
    experiment = manifest.plan.experiment
    trials = read_trials(store, bench_of=find)
    benches = _benches(manifest.plan, find)
    series = _in_order(gather_series(trials), manifest.plan, benches)
    cells = build_cells(
        series,
        baseline=experiment.baseline,
        confidence=experiment.confidence,
        seed=experiment.seed,
    )
    cells = mark_confounded(mark_cells(cells, trials), unequal := inside_run(manifest))
    scores = build_scores(manifest.plan, trials, cells)
    cells = mark_scored(cells, scores)
    findings = judge_run(
        trials,
        cells,
        headlines={bench.name: bench.headline for bench in benches},
        confidence=experiment.confidence,
    )
    return RunSummary(
        run_id=manifest.run_id,
        name=experiment.name,
        created=manifest.created_at,
        baseline=experiment.baseline,
        confidence=experiment.confidence,
        blocks=experiment.blocks,
        seed=experiment.seed,
        plan_hash=manifest.plan.plan_hash,
        trials_planned=len(manifest.plan.trials),
        trials_finished=len(store.finished_trials()),
        trials_by_status=_by_status(trials, store.finished_trials()),
        drivers=_drivers(manifest, trials),
        benches=benches,
        metrics=_metrics(benches),
        cells=cells,
        distributions=build_distributions(series.values()),
        trends=build_trends(series.values(), confidence=experiment.confidence),
        courses=tuple(trial.course for trial in trials if trial.course is not None),
        scores=scores,
        orderings=build_orderings(
            scores, cells, series, confidence=experiment.confidence, seed=experiment.seed
        ),
        gaps=find_gaps(manifest.plan, trials),
        findings=(
            *findings,
            *confounded_findings(unequal, baseline=experiment.baseline),
            *judge_scores(scores),
            *_before_and_between(store),
        ),
        versions=_versions(manifest),
        fingerprint=_facts(manifest),
        fingerprint_key=manifest.fingerprint.identity,
        experiment_toml=manifest.experiment_text,
        method=method_notes(
            manifest.plan, compared_count=sum(cell.ratio is not None for cell in cells)
        ),
    )


def _metrics(benches: Iterable[BenchSummary]) -> dict[str, Metric]:
    names = {name for bench in benches for name in bench.metrics}
    return {name: metric(name) for name in sorted(names)}


def _by_status(trials: Sequence[TrialEvidence], finished: AbstractSet[str]) -> dict[str, int]:
    """In the order in which statuses are declared."""
    counts = Counter(trial.status for trial in trials if trial.spec.trial_id in finished)
    return {str(status): counts[status] for status in TrialStatus if counts[status]}


def read_trials(store: RunStore, *, bench_of: BenchOf | None = None) -> tuple[TrialEvidence, ...]:
    """Reduces every stored trial to its samples, in the order of the plan."""
    find = bench_of or _registered
    specs = {spec.trial_id: spec for spec in store.manifest.plan.trials}
    trials: list[TrialEvidence] = []
    for trial_id, outcome in store.outcomes().items():
        spec = specs[trial_id]
        trials.append(
            reduce_trial(
                spec,
                status=outcome.status,
                reason=outcome.reason,
                findings=outcome.findings,
                tables={
                    name: _completed(name, store.read_table(trial_id, name))
                    for name in store.table_names(trial_id)
                },
                bench=find(spec.point.bench),
            )
        )
    return tuple(trials)


def _in_order(
    series: Mapping[SeriesKey, Series], plan: Plan, benches: Sequence[BenchSummary]
) -> dict[SeriesKey, Series]:
    """The series by point, driver and metric, in the order in which tables list them."""
    points = [point.key for point in plan.points]
    drivers = [*plan.drivers, FLOOR]
    metrics = [name for bench in benches for name in bench.metrics]
    ordered = sorted(
        series,
        key=lambda key: (
            points.index(key.point_key),
            drivers.index(key.driver),
            metrics.index(key.metric),
        ),
    )
    return {key: series[key] for key in ordered}


def _completed(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """The table with the columns that a run of an older version does not have yet, all unknown."""
    import polars as pl

    missing = [column for column in TABLES[name].names if column not in table.columns]
    return table.with_columns(pl.lit(None).alias(column) for column in missing)


def _registered(name: str) -> Bench:
    from seatrial.benches import registry

    return registry.get(name)


def _benches(plan: Plan, bench_of: BenchOf) -> tuple[BenchSummary, ...]:
    found: list[BenchSummary] = []
    for name in plan.experiment.benches:
        bench = bench_of(name)
        found.append(
            BenchSummary(
                name=name,
                question=bench.question,
                headline=bench.headline,
                points=tuple(point for point in plan.points if point.bench == name),
                metrics=tuple(one.name for one in bench.metrics),
            )
        )
    return tuple(found)


def _drivers(manifest: Manifest, trials: Sequence[TrialEvidence]) -> tuple[DriverSummary, ...]:
    found: list[DriverSummary] = []
    for name in manifest.plan.drivers:
        own = [trial for trial in trials if trial.spec.driver == name]
        counts = Counter(trial.status.value for trial in own)
        reasons = {trial.reason: None for trial in own if trial.reason}
        flags = manifest.driver_flags.get(name, {})
        found.append(
            DriverSummary(
                name=name,
                version=manifest.versions.drivers.get(name),
                is_baseline=name == manifest.plan.experiment.baseline,
                trials=dict(counts),
                flags={key: str(value) for key, value in flags.items()},
                reasons=tuple(reasons),
            )
        )
    return tuple(found)


def _skipped(manifest: Manifest) -> list[Finding]:
    return [
        Finding(
            code="unsupported",
            severity=Severity.INFO,
            message=f"left out of the run: {reason}",
            driver=name,
        )
        for name, reason in manifest.skipped_drivers.items()
    ]


def _before_and_between(store: RunStore) -> list[Finding]:
    """What is known of the run apart from its measurements."""
    manifest = store.manifest
    return [*_degraded(manifest), *_skipped(manifest), *_resumed(store), *_unrun(store)]


def _degraded(manifest: Manifest) -> list[Finding]:
    return [
        Finding(code="degraded", severity=Severity.WARNING, message=reason, driver=name)
        for name, reason in manifest.degraded_drivers.items()
    ]


def _resumed(store: RunStore) -> list[Finding]:
    """One finding a resumption that tore a block: its drivers were not measured side by side."""
    specs = {spec.trial_id: spec for spec in store.manifest.plan.trials}
    seen: set[int] = set()
    torn: dict[int, None] = {}
    is_resuming = False
    for event in store.journal().events:
        is_resuming = is_resuming or event.kind is EventKind.RUN_RESUMED
        spec = specs.get(event.trial_id or "")
        if spec is None:
            continue
        if is_resuming and event.kind in {EventKind.TRIAL_STARTED, EventKind.TRIAL_FINISHED}:
            is_resuming = False
            if spec.block in seen:
                torn[spec.block] = None
        if event.kind is EventKind.TRIAL_FINISHED and event.status is not TrialStatus.INTERRUPTED:
            seen.add(spec.block)
    return [
        Finding(
            code="degraded",
            severity=Severity.INFO,
            message=f"the run was stopped in block {block} (of 0 to "
            f"{store.manifest.plan.experiment.blocks - 1}) and resumed: ratios of that block are "
            "from two sittings",
            evidence={"block": block},
        )
        for block in torn
    ]


def _unrun(store: RunStore) -> list[Finding]:
    planned, finished = len(store.manifest.plan.trials), len(store.finished_trials())
    if finished == planned:
        return []
    return [
        Finding(
            code="interrupted",
            severity=Severity.WARNING,
            message=f"{finished} of {planned} trials are finished; 'seatrial run --resume' "
            "continues the run",
            evidence={"finished_count": finished, "planned_count": planned},
        )
    ]


def _versions(manifest: Manifest) -> Mapping[str, str]:
    versions = manifest.versions
    return {
        "seatrial": versions.seatrial,
        "core": f"{versions.core} ({versions.core_profile})",
        "python": versions.python,
    }


def _facts(manifest: Manifest) -> Mapping[str, str]:
    return {
        name: "unknown" if value is None else str(value)
        for name, value in manifest.fingerprint.facts.items()
    }
