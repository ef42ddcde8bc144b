"""The analysis finds in a scripted run what the script put there."""

from __future__ import annotations

import dataclasses
import io
import json
from argparse import Namespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

from seatrial.analysis.cells import location
from seatrial.analysis.compare import compare_runs
from seatrial.analysis.evidence import Series
from seatrial.cli.compare import execute
from seatrial.config.expand import expand
from seatrial.errors import ConfigError
from seatrial.model.codec import encode
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.finding import Severity
from seatrial.model.metric import METRICS
from seatrial.model.plan import Point
from seatrial.model.summary import FLOOR, Statistic, Verdict
from seatrial.report.compared import render_comparison
from seatrial.report.export import to_markdown
from seatrial.report.page import render_page
from seatrial.report.view import bench_views
from seatrial.store.run_store import RunStore
from tests.support.runs import BLOCKS, DRIVERS, small_experiment, small_run, summary_of
from tests.support.synthetic import COSTS, Script, make_run

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.summary import RunComparison, RunSummary

ONE = Point(bench="start", values={"concurrency": 1})
EIGHT = Point(bench="start", values={"concurrency": 8})
DENSITY = Point(bench="density")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scripted run with a failing start and a noisy host."""
    script = Script(blocks=BLOCKS, failing_driver="runsc", foreign_cpu_ratio=0.3, drift_ratio=0.5)
    return small_run(tmp_path_factory.mktemp("run"), script=script)


@pytest.fixture(scope="module")
def summary(run: Path) -> RunSummary:
    """Its summary."""
    return summary_of(run)


def _estimate(
    summary: RunSummary, point: Point, driver: str, metric: str, statistic: Statistic
) -> Estimate:
    cell = summary.cell(point=point, driver=driver, metric=metric, statistic=statistic)
    assert cell is not None
    assert isinstance(cell.estimate, Estimate)
    return cell.estimate


def test_medians_and_ratios_are_the_scripted_ones(summary: RunSummary) -> None:
    """Start latency of each driver, and its ratio to the baseline, cover what was scripted."""
    for driver in DRIVERS:
        cell = summary.cell(
            point=ONE, driver=driver, metric="start_first_byte_ns", statistic=Statistic.P50
        )
        assert cell is not None
        if driver == "process":
            assert (cell.ratio, cell.verdict) == (None, Verdict.BASELINE)
            continue
        true = (COSTS[driver].start_ns + 20_000) / (COSTS["process"].start_ns + 20_000)
        assert isinstance(cell.ratio, Estimate)
        assert cell.ratio.low * 0.9 < true < cell.ratio.high * 1.1
        assert cell.verdict is Verdict.SLOWER


def test_what_is_equal_is_indistinguishable(summary: RunSummary) -> None:
    """Teardown takes the same everywhere in the script."""
    cell = summary.cell(point=ONE, driver="bwrap", metric="teardown_ns", statistic=Statistic.P50)
    assert cell is not None
    assert cell.verdict is Verdict.INDISTINGUISHABLE


def test_memory_increment_and_shared_part_are_found(summary: RunSummary) -> None:
    """The slope over counts is what one more costs; the fixed part is what all share."""
    metric = "memory_pss_total_bytes"
    cost = COSTS["runsc"]
    slope = _estimate(summary, DENSITY, "runsc", metric, Statistic.SLOPE)
    fixed = _estimate(summary, DENSITY, "runsc", metric, Statistic.FIXED)
    assert slope.point == pytest.approx(cost.memory_bytes, rel=0.03)
    assert fixed.point == pytest.approx(cost.shared_bytes, rel=0.1)


def test_values_that_exist_once_a_trial_get_a_mean(summary: RunSummary) -> None:
    """Four blocks cannot support a median, so memory has a mean with Student's interval."""
    point = Point(bench="density", values={"count": 20})
    found = _estimate(summary, point, "bwrap", "memory_pss_bytes", Statistic.MEAN)
    assert (found.n, found.unit) == (BLOCKS, "bytes")


def test_quantiles_beyond_the_sample_are_refused(summary: RunSummary) -> None:
    """32 starts have no p99; the cell says how many are needed."""
    cell = summary.cell(
        point=ONE, driver="process", metric="start_first_byte_ns", statistic=Statistic.P99
    )
    assert cell is not None
    assert isinstance(cell.estimate, NotAvailable)
    assert cell.estimate.n_needed == 368


def test_success_is_a_proportion_with_an_exact_interval(summary: RunSummary) -> None:
    """One of eight starts in every trial fails: 28 of 32 succeed."""
    found = _estimate(summary, ONE, "runsc", "start_success_ratio", Statistic.PROPORTION)
    assert (found.point, found.n, found.method) == (0.875, 32, "Clopper-Pearson")


def test_floor_pools_the_null_starts_of_all_drivers(summary: RunSummary) -> None:
    """The floor has the null starts beside every driver and is compared with nothing."""
    cell = summary.cell(
        point=ONE, driver=FLOOR, metric="start_first_byte_ns", statistic=Statistic.P50
    )
    assert cell is not None
    assert cell.n == 8 * BLOCKS * len(DRIVERS)
    assert (cell.ratio, cell.verdict) == (None, Verdict.NOT_JUDGED)


def test_findings_name_what_was_wrong(summary: RunSummary) -> None:
    """Failures first; noise, drift and left-out drivers are all there, none twice."""
    by_code = {finding.code: finding for finding in summary.findings}
    assert {"start-failures", "noisy-host", "drifting", "unsupported", "degraded"} <= set(by_code)
    assert summary.findings[0].severity is Severity.ERROR
    failures = [one for one in summary.findings if one.code == "start-failures"]
    assert {one.driver for one in failures} == {"runsc"}
    assert len(failures) == 2, "one for each point, whatever the number of trials"
    assert failures[0].evidence["trials_count"] == BLOCKS
    assert by_code["noisy-host"].evidence["foreign_cpu_ratio_max"] == pytest.approx(0.3)


def test_trends_follow_the_axes(summary: RunSummary) -> None:
    """Makespan has a mark a concurrency; memory has a line through its marks."""
    trends = {(one.metric, one.driver): one for one in summary.trends}
    makespan = trends["start_makespan_ns", "runsc"]
    assert [mark.x for mark in makespan.points] == [1.0, 8.0]
    memory = trends["memory_pss_total_bytes", "runsc"]
    assert memory.line is not None
    assert memory.line.determination_ratio > 0.99


def test_distributions_are_bounded(summary: RunSummary) -> None:
    """No curve has more points than a figure can show, whatever the sample."""
    assert summary.distributions
    assert all(len(one.values) <= 120 for one in summary.distributions)
    response = [one for one in summary.distributions if one.metric == "response_time_ns"]
    assert all(one.n > 1000 for one in response)


def test_summary_is_json_and_the_same_each_time(run: Path, summary: RunSummary) -> None:
    """Analysing twice gives the same bytes: nothing depends on chance or on the clock."""
    texts = [json.dumps(encode(one), allow_nan=False) for one in (summary, summary_of(run))]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["schema_version"] == 1


def test_unsupported_trials_give_a_reason_and_no_samples(tmp_path: Path) -> None:
    """The script's `lean` lacks a power in block 0: three blocks are left, and the gap is told."""
    asked = dataclasses.replace(small_experiment(), drivers=("process", "lean"))
    found = summary_of(make_run(tmp_path, Script(blocks=BLOCKS), asked=asked))
    point = Point(bench="density", values={"count": 20})
    lean = _estimate(found, point, "lean", "memory_pss_bytes", Statistic.MEAN)
    assert lean.n == BLOCKS - 1
    gaps = [one for one in found.findings if one.code == "unsupported" and one.driver == "lean"]
    assert len(gaps) == 1, "one for the reason, whatever the number of points"
    assert "<scripted> gap" in gaps[0].message
    assert found.trials_finished == found.trials_planned
    assert list(found.trials_by_status) == ["ok", "unsupported"]
    assert sum(found.trials_by_status.values()) == found.trials_finished
    ok, unsupported = found.trials_by_status.values()
    told = f"trials finished ({ok} ok, {unsupported} unsupported)"
    assert told in to_markdown(found)
    assert told in render_page(found, figures=())


def _compare(before: Path, after: Path, *, is_forced: bool = False) -> RunComparison:
    with RunStore.open(before) as old, RunStore.open(after) as new:
        return compare_runs(old, new, is_forced=is_forced)


def test_compare_finds_a_regression_and_nothing_else(tmp_path: Path) -> None:
    """A runtime whose start takes twice as long is slower in that; the others are not."""
    before = small_run(tmp_path / "a")
    after = small_run(tmp_path / "b", script=Script(blocks=BLOCKS, scale={"bwrap": 2.0}))
    found = _compare(before, after)
    worse = {(one.driver, one.metric) for one in found.regressions}
    assert ("bwrap", "start_first_byte_ns") in worse
    assert {driver for driver, _ in worse} == {"bwrap"}
    assert any("not interleaved" in warning for warning in found.warnings)
    assert not found.unmatched


def test_compare_counts_lost_numbers_and_failures_as_regressions(tmp_path: Path) -> None:
    """Trials that fail, starts that never succeed and requests without a reply are regressions."""
    asked = dataclasses.replace(small_experiment(), density=None, inside=None)
    broken = Script(
        blocks=BLOCKS, broken_driver="bwrap", dead_driver="runsc", failed_requests_share=0.1
    )
    before = make_run(tmp_path / "a", Script(blocks=BLOCKS), asked=asked)
    after = make_run(tmp_path / "b", broken, asked=asked)
    words = {"json": False, "force": False, "adjusted": False}
    nothing: dict[str, list[str]] = {"despite": [], "factor": [], "pair": []}
    assert execute(Namespace(before=before, after=after, **words, **nothing)) == 1
    found = _compare(before, after)
    lost = {(one.driver, one.point.key) for one in found.changes if one.verdict is Verdict.LOST}
    starts = {"start concurrency=1", "start concurrency=8"}
    points = {point.key for point in expand(asked).points}
    assert lost == {("bwrap", key) for key in points} | {("runsc", key) for key in starts}
    worse = {(one.driver, one.metric): one for one in found.regressions}
    assert "of 4 trials" in worse["bwrap", "start_first_byte_ns"].explanation
    assert "bwrap: no such file" in worse["bwrap", "start_first_byte_ns"].explanation
    success, failed = worse["runsc", "start_success_ratio"], worse["process", "failed_ratio"]
    assert isinstance(success.after, Estimate)
    assert success.after.point == 0
    assert success.explanation.startswith("100.000% before, 0.000% after")
    assert failed.verdict is Verdict.SLOWER
    assert not any(text.startswith("bwrap") for text in found.unmatched)
    console = Console(width=200, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(render_comparison(found, metrics=dict(METRICS)))
    text = captured.get()
    assert "✖ lost" in text
    assert "bwrap: no such file" in text


def test_compare_takes_what_is_not_asked_for_as_unmatched(tmp_path: Path) -> None:
    """A driver that the newer request leaves out is no regression; the gap is named."""
    asked = dataclasses.replace(small_experiment(), density=None, inside=None, load=None)
    fewer = dataclasses.replace(asked, drivers=("process", "bwrap"))
    found = _compare(
        make_run(tmp_path / "a", Script(blocks=BLOCKS), asked=asked),
        make_run(tmp_path / "b", Script(blocks=BLOCKS), asked=fewer),
    )
    assert not found.regressions
    assert any(text.startswith("runsc") for text in found.unmatched)
    assert not any("start_" in text for text in found.unmatched), (
        "a point that is gone is told once"
    )


def test_shares_stay_between_zero_and_one(tmp_path: Path) -> None:
    """Few failed requests in some trials give no negative bound."""
    asked = dataclasses.replace(small_experiment(), start=None, density=None, inside=None)
    script = Script(blocks=BLOCKS, failed_requests_share=0.0007)
    found = summary_of(make_run(tmp_path, script, asked=asked))
    shares = [one.estimate for one in found.cells if one.metric == "failed_ratio"]
    assert any(isinstance(one, Estimate) and 0 < one.point < 0.01 for one in shares)
    assert all(isinstance(one, Estimate) and 0 <= one.low <= one.high <= 1 for one in shares)


def test_what_is_counted_has_no_negative_bound() -> None:
    """Some trials with none and one with many are no sign of fewer than none."""
    series = Series(
        bench="density",
        point=Point(bench="density", values={"count": 3}),
        driver="runsc",
        metric="idle_switches_rps",
        blocks={0: np.array([0.0]), 1: np.array([11.0])},
        is_one_a_trial=True,
    )
    found = location(series, confidence=0.95)
    assert isinstance(found, Estimate)
    assert found.low == 0
    changed = dataclasses.replace(series, metric="idle_drift_bytes_per_s")
    drift = location(changed, confidence=0.95)
    assert isinstance(drift, Estimate)
    assert drift.low < 0, "memory can shrink"


def test_a_column_has_one_statistic(tmp_path: Path) -> None:
    """One value a block gives means for all drivers, and the heading says so."""
    asked = dataclasses.replace(small_experiment(), density=None, inside=None, load=None)
    found = summary_of(make_run(tmp_path, Script(blocks=BLOCKS, rounds=1), asked=asked))
    (view,) = bench_views(found)
    headings = {group.point.key: group.columns[0].heading for group in view.groups}
    assert headings == {
        "start concurrency=1": "First byte, mean",
        "start concurrency=8": "First byte, p50",
    }
    for group in view.groups:
        used = {row.entries[0].cell.statistic for row in group.rows if row.entries[0]}
        assert len(used) == 1


def test_compare_refuses_other_settings_unless_forced(tmp_path: Path) -> None:
    """Other settings are named in the refusal, and become a warning when forced."""
    before = small_run(tmp_path / "a")
    asked = small_experiment()
    assert asked.inside is not None
    other = dataclasses.replace(asked, inside=dataclasses.replace(asked.inside, batches=99))
    after = make_run(tmp_path / "b", Script(blocks=BLOCKS), asked=other)
    with pytest.raises(ConfigError, match="settings of inside differ") as refused:
        _compare(before, after)
    assert refused.value.hint is not None
    assert "--force" in refused.value.hint
    forced = _compare(before, after, is_forced=True)
    assert any("settings of inside differ" in warning for warning in forced.warnings)
