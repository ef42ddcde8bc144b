"""A load that was kept is read again: text, page, figures, JSON; and what is damaged is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING

import pytest
import vl_convert

from seatrial.cli.main import main
from seatrial.errors import StoreError
from seatrial.loadtest.curve import course_of, percentile_curves
from seatrial.loadtest.result import LoadTestResult, PartSummary, read_result, result_text
from seatrial.report.load_charts import load_figures
from seatrial.report.load_page import render_load_page
from seatrial.report.load_text import kind_of, rate_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUEUE = "fake://?service=exponential:1ms"
WORDS = ["--rate", "400/s", "--duration", "4s", "-c", "100", "--timeout", "20s", "--quiet"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a load with an objective that is kept and one that is not."""
    # What draws keeps threads and descriptors for good; no test is to be blamed for them.
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": [{}]}})
    vl_convert.vegalite_to_png({"mark": "point", "data": {"values": [{}]}})
    directory = tmp_path_factory.mktemp("load") / "kept"
    objectives = ["--slo", "p50<1s", "--slo", "p50<1us"]
    assert main(["load", QUEUE, *WORDS, *objectives, "--out", str(directory)]) == 1
    return directory


@pytest.fixture(scope="module")
def result(kept: Path) -> LoadTestResult:
    """The same, read."""
    return read_result((kept / "result.json").read_text())


def test_a_kept_load_is_reported_as_it_was(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text with verdict, rates, times and objectives; the JSON is the stored one."""
    assert main(["report", str(kept), "--no-html"]) == 0
    text = capsys.readouterr().out
    for word in ("open loop, poisson arrivals at 400 /s", "p99.9", "✓ holds", "✖ fails"):
        assert word in text
    assert main(["report", str(kept), "--no-html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((kept / "result.json").read_text())
    assert main(["report", str(kept), "--no-html", "--format", "lancet"]) == 0
    assert "#ReqCount\tQPS" in capsys.readouterr().out


def test_the_page_is_there_from_the_start_and_made_again(
    kept: Path, tmp_path: Path, result: LoadTestResult
) -> None:
    """`--out` writes the page; `report` makes the same again, and figures if they are asked for."""
    first = (kept / "report.html").read_text()
    other, figures = tmp_path / "again.html", tmp_path / "figures"
    words = ["report", str(kept), "--html", str(other), "--figures", str(figures)]
    assert main(words) == 0
    assert other.read_text() == first
    names = [figure.name for figure in load_figures(result)]
    assert names == ["load-percentiles", "load-rates", "load-times"]
    assert sorted(path.stem for path in figures.glob("*.svg")) == sorted(names)


def test_the_page_says_all_that_was_asked_and_found(result: LoadTestResult) -> None:
    """Headline, objectives, intervals, findings, settings and host, without a script."""
    page = render_load_page(result, figures=())
    p50 = next(one for one in result.headline.quantiles if one.name == "p50")
    for word in (
        "asked for 400 /s",
        f"of {result.measured.intended_count}",
        "✖ fails",
        "request timeout",
        str(result.fingerprint.facts["kernel"]),
        result.fingerprint.identity,
    ):
        assert word in page
    assert page.count(getattr(p50.value, "method", "")) >= 1
    assert all(finding.message.replace("<", "&lt;") in page for finding in result.verdicts)


def test_texts_of_the_service_are_escaped(result: LoadTestResult) -> None:
    """What a service says is shown, not run."""
    said = json.loads(result_text(result))
    said["failures"] = [{"outcome": "reset", "text": "<script>alert(1)</script>", "count": 3}]
    page = render_load_page(read_result(json.dumps(said)), figures=())
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


def test_curves_and_course_are_those_of_the_load(result: LoadTestResult) -> None:
    """The curve passes through the percentiles and ends at the maximum; the course adds up."""
    curve = percentile_curves(result)[0]
    assert curve.kind == "response"
    assert (curve.rarities[-1], curve.values_ns[-1]) == (
        result.headline.count,
        result.headline.max_ns,
    )
    at_p90 = curve.values_ns[min(n for n, r in enumerate(curve.rarities) if r >= 10 - 1e-9)]
    told = next(one.sample_ns for one in result.headline.quantiles if one.name == "p90")
    assert at_p90 == told
    assert list(curve.values_ns) == sorted(curve.values_ns)
    replies = sum(point.ok_rps * point.length_ns / 1e9 for point in course_of(result))
    assert replies == pytest.approx(result.counts.ok_count)


def test_a_long_course_is_put_together(result: LoadTestResult) -> None:
    """More stretches than a figure is wide become fewer, and nothing is lost of the counts."""
    said = json.loads(result_text(result))
    width_ns = 100_000_000
    one = said["series"][-5]
    said["series"] = [
        {**one, "start_ns": n * width_ns, "end_ns": (n + 1) * width_ns, "p99_ns": n}
        for n in range(1000)
    ]
    course = course_of(read_result(json.dumps(said)))
    assert len(course) == 250
    assert {point.length_ns for point in course} == {4 * width_ns}
    assert [point.p99_ns for point in course[:2]] == [3, 7]
    assert course[0].ok_rps == pytest.approx(one["ok_count"] * 10)


def test_rates_of_load_and_latency_agents_stand_apart(result: LoadTestResult) -> None:
    """The head says both rates, and a row each adds up to the one of all together."""
    parts = tuple(
        PartSummary(
            role=role,
            agents_count=count,
            asked_rps=rate,
            offered_rps=rate,
            achieved_rps=rate,
            sent_bytes_per_s=1.0,
            received_bytes_per_s=1.0,
            measured=result.measured,
        )
        for role, count, rate in (("load", 2, 400.0), ("latency", 1, 100.0))
    )
    both = dataclasses.replace(result, parts=parts)
    assert "at 400 /s" in kind_of(both)
    assert "1 latency agent beside them at 100 /s" in kind_of(both)
    assert [(row.who, row.offered) for row in rate_rows(both)][:2] == [
        ("2 load agents", "400 /s"),
        ("1 latency agent", "100 /s"),
    ]
    assert rate_rows(both)[-1].who == "together"
    assert "asked for 400 /s + 100 /s" in render_load_page(both, figures=())


@pytest.mark.parametrize("form", ["csv", "markdown"])
def test_formats_of_runs_are_refused(
    form: str, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A single load has no cells of drivers; the error says what there is."""
    assert main(["report", str(kept), "--format", form]) == 2
    assert "table, json, lancet" in capsys.readouterr().err


def _set(name: str, value: object) -> Callable[[dict[str, object]], None]:
    return lambda found: found.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("schema_version", 99), "schema 99; expected 1 to 2"),
        (_set("url", 7), "url: got 7; expected str"),
        (_set("surprise", 1), "unknown surprise"),
        (lambda found: found.pop("times"), "times missing"),
        (lambda found: found.pop("schema_version"), "no schema_version"),
    ],
)
def test_a_changed_result_is_refused_by_name(
    change: Callable[[dict[str, object]], None], told: str, result: LoadTestResult
) -> None:
    """The error says which field, what it holds, and what was expected."""
    found = json.loads(result_text(result))
    change(found)
    with pytest.raises(StoreError, match=told):
        read_result(json.dumps(found))


def test_damaged_files_are_refused(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cut file, and a histogram that is none; never a traceback."""
    damaged = tmp_path / "damaged"
    shutil.copytree(kept, damaged)
    text = (damaged / "result.json").read_text()
    found = json.loads(text)
    found["histograms"]["response"] = "no base64!"
    for content, told in ((text[:1000], "is no JSON"), (json.dumps(found), "is no base64")):
        (damaged / "result.json").write_text(content)
        assert main(["report", str(damaged)]) == 3
        assert told in capsys.readouterr().err


def test_results_of_the_first_schema_are_read(result: LoadTestResult) -> None:
    """Failures were lists, and the begin of measuring follows from the start and the warm-up."""
    old = json.loads(result_text(result))
    old["schema_version"] = 1
    old["failures"] = [["reset", "gone", 3]]
    del old["measure_start_ns"], old["parts"]
    read = read_result(json.dumps(old))
    assert (read.failures[0].outcome, read.failures[0].count) == ("reset", 3)
    # The agent's clock begins with its first action, a moment before the schedule does.
    assert abs(read.measure_start_ns - result.measure_start_ns) < 1_000_000_000
    del old["agents"]
    with pytest.raises(StoreError, match="measure_start_ns"):
        read_result(json.dumps(old))
