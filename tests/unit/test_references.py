"""Another run's numbers beside ours: which, under which name, and only where they belong."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from seatrial.analysis.references import references_of
from seatrial.analysis.summarise import summarise
from seatrial.cli.main import main
from seatrial.model.summary import Reference, ReferencePoint, Trend, TrendPoint
from seatrial.report.charts import trend_figures
from seatrial.report.references import reference_words, references_beside
from seatrial.store.run_store import RunStore, find_runs
from tests.support.rund import FIXTURE, time_tree

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.summary import RunSummary


@pytest.fixture
def imported(tmp_path: Path) -> RunSummary:
    """The fixture of RunD's data as a run."""
    main(["import", "rund", str(FIXTURE), "--out", str(tmp_path / "runs")])
    (path,) = find_runs(tmp_path / "runs")
    with RunStore.open(path) as store:
        return summarise(store)


def test_foreign_numbers_stand_beside_ours(imported: RunSummary) -> None:
    """Makespan beside makespan, latency beside first reply, PSS without an interval."""
    found = {
        (one.metric, one.axis, json.dumps(dict(one.held))): one for one in references_of(imported)
    }
    time = found["start_makespan_ns", "concurrency", "{}"]
    assert (time.source, time.foreign_metric) == ("ae_data: rund", "rund.makespan_mean")
    assert [mark.x for mark in time.points] == [1, 10]
    assert time.points[1].point == pytest.approx(116.4e6)
    assert time.points[1].low is not None
    assert found["start_first_reply_ns", "concurrency", "{}"].foreign_metric == "rund.latency"
    crowd = found["start_makespan_ns", "concurrency", '{"background": 100}']
    assert crowd.points[1].point == pytest.approx(116.6e6)
    held = found["memory_pss_bytes", "count", json.dumps({"memory_bytes": 128 << 20})]
    assert [mark.low for mark in held.points] == [None, None]
    assert not any("p99_lower" in one.foreign_metric for one in found.values())


def test_only_lines_of_the_same_metric_and_company_are_drawn(imported: RunSummary) -> None:
    """A line with 100 idle sandboxes does not stand beside starts without company."""
    held = {"background": 100}
    trend = next(one for one in imported.trends if one.metric == "rund.makespan_mean")
    ours = dataclasses.replace(trend, metric="start_makespan_ns", held={}, axis="concurrency")
    summary = dataclasses.replace(imported, references=references_of(imported))
    (alone,) = references_beside(summary, [ours], metric="start_makespan_ns", axis="concurrency")
    assert alone.held == {}
    (beside,) = references_beside(
        summary,
        [dataclasses.replace(ours, held=held)],
        metric="start_makespan_ns",
        axis="concurrency",
    )
    assert beside.held == held
    assert "process starts and polls included" in reference_words([alone])
    assert reference_words([]) == ""


def test_a_figure_has_the_line_and_says_what_it_is(imported: RunSummary) -> None:
    """Its values, dashed, and its definition in the caption; none without a reference."""
    line = Reference(
        source="elsewhere: vmm",
        metric="rund.makespan_mean",
        foreign_metric="other.number",
        axis="concurrency",
        held={},
        points=tuple(ReferencePoint(x=x, point=x * 7e6, low=None, high=None) for x in (1.0, 9.0)),
    )
    drawn = {
        bool(references): trend_figures(
            dataclasses.replace(imported, references=references),
            metric="rund.makespan_mean",
            axis="concurrency",
            name="x",
            title="x",
            caption="x.",
            bench="rund-time",
        )
        for references in ((), (line,))
    }
    (with_line,), (without,) = drawn[True], drawn[False]
    text = json.dumps(with_line.spec)
    assert "strokeDash" in text
    assert '"y": 63.0' in text
    assert "elsewhere: vmm: other.number" in with_line.caption
    assert "elsewhere" not in json.dumps(without.spec) + without.caption
    assert isinstance(imported.trends[0], Trend)
    assert isinstance(imported.trends[0].points[0], TrendPoint)


def test_the_command_takes_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are in the summary; a path that holds no run is an error."""
    for name, latency in (("one", 100), ("two", 200)):
        time_tree(tmp_path / name, {n: [[latency] * n] * 6 for n in (1, 2)})
        main(["import", "rund", str(tmp_path / name), "--out", str(tmp_path / f"runs-{name}")])
    runs = [str(find_runs(tmp_path / f"runs-{name}")[0]) for name in ("one", "two")]
    capsys.readouterr()
    assert main(["report", runs[0], "--no-html", "--json", "--reference", runs[1]]) == 0
    found = json.loads(capsys.readouterr().out)["references"]
    assert {one["source"] for one in found} == {"two: rund"}
    assert main(["report", runs[0], "--no-html", "--reference", str(tmp_path)]) == 3
