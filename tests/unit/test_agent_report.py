"""What a report shows of the benches `fleet` and `rpc`, from a scripted run."""

from __future__ import annotations

import dataclasses
import io
import re
from typing import TYPE_CHECKING

import pytest
import vl_convert
from rich.console import Console

from seatrial.importers.mitosis import read_mitosis
from seatrial.report.charts import build_figures
from seatrial.report.client_lines import write_client_lines
from seatrial.report.familiar import familiar_rows
from seatrial.report.page import render_page
from seatrial.report.text import render_text
from seatrial.store.run_store import RunStore
from tests.support.runs import summary_of
from tests.support.synthetic import COSTS, Script, experiment, make_run
from tests.support.synthetic_agents import CLIENT_REPLIES, FLEET, INTERVALS, RPC

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.summary import RunSummary

DRIVERS = ("process", "runsc")
BLOCKS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both benches on two drivers."""
    asked = dataclasses.replace(
        experiment(drivers=DRIVERS, blocks=BLOCKS),
        start=None,
        density=None,
        load=None,
        inside=None,
        fleet=FLEET,
        rpc=RPC,
    )
    return make_run(tmp_path_factory.mktemp("run"), Script(blocks=BLOCKS), asked=asked)


@pytest.fixture(scope="module")
def summary(run: Path) -> RunSummary:
    """The run, analysed."""
    return summary_of(run)


@pytest.fixture(autouse=True, scope="module")
def _javascript() -> None:
    """Loads what draws figures; it keeps threads and descriptors for good."""
    vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def test_one_server_is_measured_once(summary: RunSummary) -> None:
    """One server in one sandbox is the same in both layouts."""
    (fleet,) = [bench for bench in summary.benches if bench.name == "fleet"]
    assert len(fleet.points) == 2 * (1 + 2)


def test_familiar_rows_hold_the_numbers_of_the_run(summary: RunSummary) -> None:
    """Offered and achieved are of load and latency agents; replies add up over trials."""
    rows = {(row.driver, row.point.key): row for row in familiar_rows(summary)}
    assert len(rows) == len(DRIVERS) * 6
    key = "fleet count=2 demand=constant:100us layout=servers rate_rps=2000"
    row = rows["runsc", key]
    assert (row.offered, row.answered) == ("2500.000", "100.0%")
    assert row.throughput == (f"{2500 * BLOCKS}", "2500.000", "120000.000", "80000.000")
    median = float(row.latency[1].partition("(")[0])
    assert median == pytest.approx(COSTS["runsc"].service_ns / 1_000, rel=0.05)
    assert re.fullmatch(r"[\d.]+\([\d.]+, [\d.]+\)", row.latency[3])


def test_figures_follow_the_load_and_the_clients(summary: RunSummary) -> None:
    """One figure for each way of having so many servers, and for each mode."""
    figures = {figure.name: figure for figure in build_figures(summary)}
    titles = [figures[f"fleet-latency-{number}"].title for number in (1, 2, 3)]
    assert titles == [
        "Latency against load, 1 sandbox, constant:100us",
        "Latency against load, 2 sandboxes, constant:100us",
        "Latency against load, 2 servers in 1 sandbox, constant:100us",
    ]
    assert {"rpc-calls-1", "rpc-calls-2"} <= set(figures)
    spec = figures["fleet-latency-1"].spec
    values = spec["datasets"][spec["data"]["name"]]
    assert {value["x"] for value in values} == {500.0, 2000.0}
    assert {value["what"] for value in values} == {"p50", "p99"}
    assert not [name for name in figures if name.startswith("load-")], "they are of bench load"


def test_page_and_terminal_have_both_benches(summary: RunSummary) -> None:
    """Lancet's headings stand in the terminal, sections and tables on the page."""
    written = io.StringIO()
    Console(width=200, file=written).print(render_text(summary))
    text = written.getvalue()
    for word in ("#ReqCount", "#Avg Lat", "2 servers in 1 sandbox", "checksum, threads 1"):
        assert word in text
    page = render_page(summary)
    assert 'id="bench-fleet"' in page
    assert 'id="figure-rpc-calls-1"' in page


def test_lines_of_clients_read_back_to_the_total(run: Path, summary: RunSummary) -> None:
    """A file a trial of the bench, whose total is that of the table."""
    with RunStore.open(run) as store:
        files = write_client_lines(store)
        clients = {
            spec.trial_id: int(spec.point.values["clients"])
            for spec in store.manifest.plan.trials
            if spec.point.bench == "rpc"
        }
    assert [file.stem for file in files] == list(clients)
    for file, count in zip(files, clients.values(), strict=True):
        log = read_mitosis(file)
        assert len(log.sources) == count
        expected = CLIENT_REPLIES * INTERVALS * count
        assert log.total_rate_per_s == pytest.approx(expected, rel=0.011)
    rates = {cell.metric for cell in summary.cells if cell.bench == "rpc"}
    assert {"rpc_rps", "client_rps", "service_time_ns"} <= rates
