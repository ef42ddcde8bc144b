"""Statuses, marks, orders and findings of a run whose troubles are known."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING

import pytest
import vl_convert
from rich.console import Console

from seatrial.analysis.scores import build_orderings
from seatrial.analysis.tries import tries_of
from seatrial.benches.attempts import Outcome
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.finding import Severity
from seatrial.model.plan import Point, TrialSpec
from seatrial.model.summary import Ordering, Relation, Statistic, Status, Verdict
from seatrial.model.trial import TrialStatus
from seatrial.report.board import ordering_line, ordering_lines, overview_of
from seatrial.report.export import to_json, to_markdown
from seatrial.report.inside_charts import inside_figures
from seatrial.report.page import render_page
from seatrial.report.text import render_text
from tests.support.runs import summary_of
from tests.support.synthetic import Script, experiment, make_run
from tests.support.synthetic_inside import INSIDE, REPEATS

if TYPE_CHECKING:
    from seatrial.model.summary import RunSummary, Score

DRIVERS = ("process", "lean", "bwrap", "runc", "runsc")
BLOCKS = 3
HELLO = Point(bench="inside", values={"test": "hello"})
DD = Point(bench="inside", values={"test": "dd"})
FIO = Point(bench="inside", values={"test": "fio", "variant": "direct"})
NETWORK = Point(bench="inside", values={"test": "network"})
FUNCTIONS = Point(bench="inside", values={"test": "functions"})
PROBES = Point(bench="inside")


@pytest.fixture(autouse=True, scope="module")
def _javascript() -> None:
    """Starts the runtime that draws figures; it keeps threads and descriptors for good."""
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": [{}]}})
    vl_convert.javascript_bundle("")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A run of everything inside on five runtimes."""
    asked = dataclasses.replace(
        experiment(drivers=DRIVERS, blocks=BLOCKS),
        start=None,
        density=None,
        load=None,
        inside=INSIDE,
    )
    script = Script(blocks=BLOCKS)
    return summary_of(make_run(tmp_path_factory.mktemp("inside"), script, asked=asked))


def score(summary: RunSummary, point: Point, driver: str, metric: str) -> Score:
    """One score, which must be there."""
    found = summary.score(point=point, driver=driver, metric=metric)
    assert found is not None
    return found


class TestScores:
    def test_every_number_has_one(self, summary: RunSummary) -> None:
        """Of every driver, whatever became of it: no row is blank (G8)."""
        keys = [(one.point.key, one.driver, one.metric) for one in summary.scores]
        assert len(set(keys)) == len(keys)
        per_driver = dict.fromkeys(DRIVERS, 0)
        for one in summary.scores:
            per_driver[one.driver] += 1
        assert len(set(per_driver.values())) == 1
        assert all(one.status is not Status.NOT_RUN for one in summary.scores)

    def test_repeats_and_first_touch(self, summary: RunSummary) -> None:
        """Many repeats, and the first of each trial kept apart from them (G1)."""
        one = score(summary, HELLO, "process", "hello_real_ns")
        assert one.status is Status.STABLE
        assert (one.ok_count, one.tries_count) == (BLOCKS * REPEATS, BLOCKS * REPEATS)
        assert one.value == pytest.approx(1e6, rel=0.02)
        assert len(one.first) == BLOCKS
        assert min(one.first) > 1.7e6
        assert one.most is not None
        assert one.most < 1.1e6

    def test_probes_of_the_guest(self, summary: RunSummary) -> None:
        """The median of a trial's batches is one repeat."""
        one = score(summary, PROBES, "runc", "syscall_ns")
        assert one.status is Status.STABLE
        assert (one.ok_count, one.marks) == (BLOCKS, ())

    def test_direct_io_that_stays_in_memory(self, summary: RunSummary) -> None:
        """It is marked, told, left out of the order, and never called faster (G5)."""
        one = score(summary, FIO, "runsc", "fio_randread_bytes_per_s")
        assert one.device_ratio == 0
        assert "cached" in one.marks
        honest = score(summary, FIO, "lean", "fio_randread_bytes_per_s")
        assert honest.device_ratio == pytest.approx(1, abs=0.01)
        assert "cached" not in honest.marks
        cell = summary.cell(point=FIO, driver="runsc", metric=one.metric, statistic=Statistic.P50)
        assert cell is not None
        assert cell.verdict is Verdict.NOT_JUDGED
        assert "cached" in cell.marks
        found = [finding for finding in summary.findings if finding.code == "cached"]
        assert {finding.driver for finding in found} == {"runsc"}
        assert all("moved 0% of its bytes" in finding.message for finding in found)

    def test_buffered_io_is_marked_and_no_finding(self, summary: RunSummary) -> None:
        """Everybody's plain dd stays in the page cache: that is said beside it, and no more."""
        for driver in DRIVERS:
            assert "cached" in score(summary, DD, driver, "dd_write_bytes_per_s").marks
        order = ordering(summary, DD, "dd_write_bytes_per_s")
        assert set(order.drivers) == set(DRIVERS)

    def test_better_than_the_host(self, summary: RunSummary) -> None:
        """Far more than the host's is to be explained: exceeds-host (the seed's 112.7 of 44.1)."""
        one = score(summary, DD, "lean", "dd_sync_write_bytes_per_s")
        assert one.marks == ("exceeds-host",)
        (found,) = [finding for finding in summary.findings if finding.code == "exceeds-host"]
        assert found.driver == "lean"

    def test_some_failures(self, summary: RunSummary) -> None:
        """They make it unstable, though the others agree, and are told with their reason."""
        one = score(summary, DD, "runc", "dd_read_bytes_per_s")
        assert one.status is Status.UNSTABLE
        assert (one.ok_count, one.tries_count) == (BLOCKS * (REPEATS - 1), BLOCKS * REPEATS)
        (found,) = [
            finding
            for finding in summary.findings
            if finding.code == "tries-failed" and finding.severity is Severity.WARNING
        ]
        assert "fell over <here>" in found.message
        assert f"{BLOCKS} of {BLOCKS * REPEATS}" in found.message

    def test_what_can_never_work(self, summary: RunSummary) -> None:
        """Unsupported is no failure, and the reason is kept."""
        one = score(summary, FUNCTIONS, "bwrap", "function_python_ns")
        assert one.status is Status.UNSUPPORTED
        assert one.value is None
        cell = summary.cell(
            point=FUNCTIONS, driver="bwrap", metric=one.metric, statistic=Statistic.P50
        )
        assert cell is not None
        assert isinstance(cell.estimate, NotAvailable)
        assert cell.estimate.reason.startswith("unsupported: start python")

    def test_what_was_skipped(self, summary: RunSummary) -> None:
        """It is told once, not once a number."""
        one = score(summary, NETWORK, "runc", "download_curl_bytes_per_s")
        assert (one.status, one.tries_count) == (Status.SKIPPED, 0)
        (found,) = [finding for finding in summary.findings if finding.code == "skipped"]
        assert (found.driver, found.message) == ("runc", "network: runc has no network here")

    def test_repeats_that_stand_apart(self, summary: RunSummary) -> None:
        """One of five is marked, and makes the number unstable: outliers."""
        one = score(summary, HELLO, "runsc", "hello_real_ns")
        assert "outliers" in one.marks
        assert one.status is Status.UNSTABLE
        assert score(summary, HELLO, "runsc", "hello_cpu_ns").marks == ()


def ordering(summary: RunSummary, point: Point, metric: str) -> Ordering:
    """The order by one number."""
    (found,) = [
        one for one in summary.orderings if (one.point.key, one.metric) == (point.key, metric)
    ]
    return found


class TestOrderings:
    def test_the_worst_stands_first(self, summary: RunSummary) -> None:
        """Clear differences, one that is only seen, and the words of both."""
        order = ordering(summary, HELLO, "hello_cpu_ns")
        assert order.drivers == ("runsc", "runc", "bwrap", "lean", "process")
        assert order.relations == (Relation.MORE,) * 3 + (Relation.BARELY_MORE,)
        line = ordering_line(order)
        assert line == "hello, All CPU: runsc > runc > bwrap > lean >= process"

    def test_rates_read_the_other_way(self, summary: RunSummary) -> None:
        """The worst gets less; numbers of memory have no place among those of a disk."""
        order = ordering(summary, FIO, "fio_randread_bytes_per_s")
        assert order.drivers == ("runc", "bwrap", "lean", "process")
        assert order.relations == (Relation.LESS, Relation.LESS, Relation.BARELY_LESS)
        assert order.unranked == {"runsc": "cached"}
        assert ordering_line(order).endswith("; not ranked: runsc (cached)")

    def test_the_order_is_that_of_the_numbers_shown(self, summary: RunSummary) -> None:
        """A table and the line below it cannot contradict each other: blocks may be unlike."""
        scores = [one for one in summary.scores if one.point.key == HELLO.key]
        cells = [
            dataclasses.replace(cell, estimate=NotAvailable(reason="too few", n=1, point=1.0))
            if (cell.driver, cell.metric) == ("runsc", "hello_cpu_ns")
            else cell
            for cell in summary.cells
        ]
        found = build_orderings(scores, cells, {}, confidence=0.95, seed=1)
        (order,) = [one for one in found if one.metric == "hello_cpu_ns"]
        assert order.drivers == ("runc", "bwrap", "lean", "process", "runsc")

    def test_those_without_a_number_are_named(self, summary: RunSummary) -> None:
        """With the word for why."""
        order = ordering(summary, FUNCTIONS, "function_python_ns")
        assert order.unranked == {"bwrap": "unsupported"}

    def test_the_line_of_the_seed(self) -> None:
        """As its experiment concluded, but from intervals."""
        order = Ordering(
            point=HELLO,
            metric="hello_real_ns",
            drivers=("kata", "gvisor-kvm", "runc", "host"),
            relations=(Relation.MORE, Relation.BARELY_MORE, Relation.UNRESOLVED),
        )
        assert ordering_line(order) == "hello, Hello, real: kata > gvisor-kvm >= runc ?=? host"

    def test_memory_that_is_the_hosts_is_never_compared(self, summary: RunSummary) -> None:
        """A guest's `free` against the host's compares two things (G3)."""
        metrics = {one.metric for one in summary.orderings}
        assert not metrics & {"guest_used_bytes", "guest_total_bytes"}
        assert summary.metrics["guest_used_bytes"].direction.value == "none"


class TestReports:
    def test_overview(self, summary: RunSummary) -> None:
        """A row a number, a column a runtime, the ratio to the host in each place."""
        overview = overview_of(summary)
        assert overview is not None
        assert overview.drivers == DRIVERS
        rows = {row.metric: row for row in overview.rows}
        hello = rows["hello_real_ns"].places
        assert hello[0] is not None
        assert hello[0].ratio == ""
        assert hello[3] is not None
        assert hello[3].ratio.startswith("12.")
        assert hello[3].verdict is Verdict.SLOWER
        direct = rows["fio_randread_bytes_per_s"]
        assert direct.heading == "fio randread, direct"
        assert direct.places[4] is not None
        assert direct.places[4].signs == " (C)"
        assert direct.places[4].verdict is Verdict.NOT_JUDGED
        python = rows["function_python_ns"].places[2]
        assert python is not None
        assert python.value == "unsupported"

    def test_a_number_that_only_the_score_knows(self, summary: RunSummary) -> None:
        """A trial that was cut short gives no estimate: overview and bars show what was read."""
        metric = "fio_randread_bytes_per_s"
        cells = tuple(
            dataclasses.replace(cell, estimate=NotAvailable(reason="cut short", n=0), ratio=None)
            if (cell.metric, cell.driver) == (metric, "runc")
            else cell
            for cell in summary.cells
        )
        cut = dataclasses.replace(summary, cells=cells)
        overview = overview_of(cut)
        assert overview is not None
        (row,) = (row for row in overview.rows if row.metric == metric)
        place = row.places[DRIVERS.index("runc")]
        assert place is not None
        assert place.value.endswith("iB/s")
        assert place.ratio.startswith("~")
        (figure,) = (one for one in inside_figures(cut) if one.name == "inside-fio-direct")
        assert '"row": "randread", "driver": "runc"' in json.dumps(figure.spec)

    def test_text_page_and_markdown_say_the_same(self, summary: RunSummary) -> None:
        """Statuses, marks, first touches, shares of the device, orders and the legend."""
        console = Console(width=250, record=True, file=io.StringIO())
        console.print(render_text(summary))
        for text in (console.export_text(), render_page(summary), to_markdown(summary)):
            for words in (
                "unsupported",
                "skipped",
                "(C)",
                "(E)",
                "device 0%",
                "device 100%",
                "veth pair",
                "stable",
                "coefficient of variation is at most 5 %",
                "not ranked: runsc (cached)",
            ):
                assert words in text, words

    def test_untrusted_words_stay_words(self, summary: RunSummary) -> None:
        """A tool's message is text in the page, never markup."""
        assert "<here>" not in render_page(summary)

    def test_json_has_all(self, summary: RunSummary) -> None:
        """For whoever makes another table."""
        said = json.loads(to_json(summary))
        assert len(said["scores"]) == len(summary.scores)
        assert said["scores"][0]["status"] in set(Status)
        assert len(said["orderings"]) == len(summary.orderings)
        assert len(ordering_lines(summary)) == len(summary.orderings)


class TestTries:
    def test_a_trial_that_failed_stands_for_its_work(self) -> None:
        """What it could not do is failed, or unsupported, and not simply not there."""
        spec = TrialSpec(trial_id="t1", index=0, block=0, driver="x", point=DD, seed=1)
        for status, outcome in (
            (TrialStatus.FAILED, Outcome.FAILED),
            (TrialStatus.UNSUPPORTED, Outcome.UNSUPPORTED),
        ):
            (one,) = tries_of(spec, {}, status=status, reason="why")
            assert (one.outcome, one.reason, one.is_first) == (outcome, "why", False)
        assert tries_of(spec, {}, status=TrialStatus.INTERRUPTED, reason="stop") == ()
        assert tries_of(spec, {}, status=TrialStatus.OK, reason=None) == ()
        other = dataclasses.replace(spec, point=Point(bench="start"))
        assert tries_of(other, {}, status=TrialStatus.FAILED, reason="why") == ()


def test_an_unknown_device_is_told_from_a_good_one(summary: RunSummary) -> None:
    """Files on overlay have no device: device-unknown, and nothing is said about caches."""
    from seatrial.analysis.scores import _score
    from seatrial.analysis.tries import Try

    tries = [
        Try(
            work="sync-write",
            position=position,
            outcome=Outcome.OK,
            readings={"dd_sync_write_bytes_per_s": 5.0},
            has_files=True,
        )
        for position in range(4)
    ]
    one = _score(DD, "x", "sync-write", "dd_sync_write_bytes_per_s", tries)
    assert (one.marks, one.device_ratio) == (("device-unknown",), None)
    assert isinstance(summary.cells[0].estimate, Estimate | NotAvailable)
