"""The benches `fleet` and `rpc` on real sandboxes: counts agree, lines read back, damage shows."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from seatrial.agents.team import Team
from seatrial.cli import main as cli
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.drivers.session import LocalSession
from seatrial.guest.channel import GuestChannel
from seatrial.importers.mitosis import read_mitosis
from seatrial.model.trial import TrialStatus
from seatrial.report.client_lines import write_client_lines
from seatrial.store.run_store import RunStore
from tests.support.fake_run import run_text
from tests.support.flipping_proxy import FlippingProxy
from tests.support.needs import needs_driver, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import polars as pl

pytestmark = [pytest.mark.driver, pytest.mark.timeout(120)]

FLEET = """
name = "fleet"
blocks = 1
baseline = "{driver}"
drivers = ["{driver}"]
[fleet]
counts = [2]
rates = ["300/s"]
connections = 4
duration = "300ms"
warm_up = "100ms"
drain = "2s"
"""
RPC = """
name = "rpc"
blocks = 1
baseline = "{driver}"
drivers = ["{driver}"]
[rpc]
modes = [{modes}]
clients = [2]
client_duration = "400ms"
warm_up = "100ms"
interval = "100ms"
server_duration = "60s"
"""
#: What says that the trial itself went wrong; of the others a busy machine may have some.
WRONG = {"counter-mismatch", "corrupt-reply", "request-failures", "leftovers", "trial-failed"}


@pytest.fixture(params=["process", "lean", "runc", "runsc"])
def driver(request: pytest.FixtureRequest) -> str:
    """A driver that works here."""
    needs_root("make the network of a sandbox")
    name: str = request.param
    needs_driver(name)
    return name


@pytest.fixture
def stranger(driver: str) -> Iterator[GuestChannel]:
    """A sandbox of the same driver and another run, alive meanwhile."""
    with ExitStack() as stack:
        session = stack.enter_context(
            registry.get(driver).open(DriverContext.for_run(new_run_id()))
        )
        plan = session.plan(SandboxSpec(role=("idle",)), 0)
        (result,) = session.launcher.start(
            [plan], wait_for="ready", hold=True, timeout_ns=60 * 10**9
        ).results
        assert result.outcome == "ok", result
        channel = stack.enter_context(GuestChannel(session.launcher.channel(plan.id)))
        processes = set(session.processes(plan.id))
        yield channel
        channel.ping(b"still here")
        assert set(session.processes(plan.id)) == processes
        session.launcher.stop([plan.id])
        deadline_ns = time.monotonic_ns() + 10 * 10**9
        assert session.wait_gone(plan.id, deadline_ns) is not None


def tables_of(store: RunStore, trial_id: str) -> dict[str, pl.DataFrame]:
    """Every table of a trial."""
    return {name: store.read_table(trial_id, name) for name in store.table_names(trial_id)}


def check_counters(tables: dict[str, pl.DataFrame]) -> None:
    """Servers read what clients sent, and everything was answered."""
    sent = tables["loads"]["sent_count"].sum()
    assert sent > 0
    assert tables["servers"]["requests_count"].sum() == sent
    assert tables["loads"]["ok_count"].sum() == tables["loads"]["intended_count"].sum()


@pytest.mark.usefixtures("stranger")
def test_fleet_loads_every_server_alike(driver: str, tmp_path: Path) -> None:
    """Both layouts, each server with its own numbers; strangers are left alone."""
    summary, path = run_text(FLEET.format(driver=driver), tmp_path)
    assert not WRONG & {finding.code for finding in summary.findings}, summary.findings
    with RunStore.open(path) as store:
        trials = {spec.trial_id: spec.point for spec in store.manifest.plan.trials}
        for trial_id, point in trials.items():
            tables = tables_of(store, trial_id)
            check_counters(tables)
            targets = tables["targets"]
            assert targets["target"].n_unique() == targets.height == 2
            is_spread = point.values["layout"] == "sandboxes"
            assert targets["sandbox"].n_unique() == (2 if is_spread else 1)
            assert targets["ok_count"].min() > 20
            assert set(tables["loads"]["agent"]) == {"load-0", "latency-0"}
    assert len(trials) == 2
    assert {cell.metric for cell in summary.cells} >= {"response_time_ns", "target_spread_ratio"}


def test_rpc_lines_read_back_to_the_same_total(driver: str, tmp_path: Path) -> None:
    """Client lines, importer and our own rate agree; servers and clients count alike."""
    modes = ("empty", "checksum") if driver == "process" else ("checksum",)
    text = RPC.format(driver=driver, modes=", ".join(f'"{mode}"' for mode in modes))
    summary, path = run_text(text, tmp_path)
    assert not WRONG & {finding.code for finding in summary.findings}, summary.findings
    with RunStore.open(path) as store:
        files = write_client_lines(store)
        assert len(files) == len(modes)
        for spec, file in zip(store.manifest.plan.trials, files, strict=True):
            tables = tables_of(store, spec.trial_id)
            check_counters(tables)
            log = read_mitosis(file)
            assert [source.source for source in log.sources] == ["client-0", "client-1"]
            assert {source.intervals_count for source in log.sources} == {4}
            whole = tables["intervals"].filter(tables["intervals"]["position"].is_between(0, 3))
            replies = whole["ok_count"].sum()
            assert log.total_rate_per_s == pytest.approx(replies / 0.4)
            told = file.read_text().splitlines()[-1].removeprefix("# total of 2 clients: ")
            assert float(told.removesuffix(" requests/s")) == pytest.approx(replies / 0.4)


def test_familiar_columns_stand_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was offered stands beside what was achieved, under Lancet's headings."""
    needs_root("make the network of a sandbox")
    text = FLEET.format(driver="process").replace("blocks = 1", "blocks = 2")
    _, path = run_text(text.replace("counts = [2]", "counts = [1]"), tmp_path)
    assert cli.main(["report", "--no-html", "--format", "lancet", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("#ReqCount\tQPS\tRxBw\tTxBw") == 1
    assert lines.count("#Avg Lat\t50th\t90th\t95th\t99th") == 1
    offered, achieved = re.findall(r"[\d.]+ QPS", next(one for one in lines if "Offered" in one))
    assert lines[3].split("\t")[1] == achieved.removesuffix(" QPS")
    assert float(offered.removesuffix(" QPS")) > 300
    assert cli.main(["report", "--no-html", str(path)]) == 0
    assert "#ReqCount" in capsys.readouterr().out


def test_a_flipped_bit_fails_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of one reply among thousands: the finding tells offset, seed and both sums."""
    needs_root("make the network of a sandbox")
    endpoint = LocalSession.endpoint
    with ExitStack() as stack:

        def through_proxy(session: LocalSession, plan_id: str, port: int) -> str:
            host, _, number = (
                endpoint(session, plan_id, port).removeprefix("tcp://").rpartition(":")
            )
            proxy = FlippingProxy((host, int(number)), reply=50, offset=1_234, bit=3)
            return stack.enter_context(proxy).target

        monkeypatch.setattr(LocalSession, "endpoint", through_proxy)
        summary, path = run_text(RPC.format(driver="process", modes='"checksum"'), tmp_path)
    (corrupt,) = [finding for finding in summary.findings if finding.code == "corrupt-reply"]
    assert corrupt.evidence["corrupt_count"] == 1
    assert "byte 1234 of its 2048 payload bytes" in corrupt.message
    assert re.search(r"seed 0x[0-9a-f]{16}", corrupt.message)
    sums = re.findall(r"sum \D*(0x[0-9a-f]{16})", corrupt.message)
    assert len(set(sums)) == 2, corrupt.message
    with RunStore.open(path) as store:
        (outcome,) = store.outcomes().values()
        assert outcome.status is TrialStatus.FAILED
        assert "requests" in store.table_names(outcome.trial_id)


def test_a_client_that_dies_fails_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A total over the clients that are left would be a wrong total."""
    needs_root("make the network of a sandbox")
    run = Team.run

    def bereft(team: Team, *words: object, **settings: object) -> object:
        os.kill(team.pid_of("client-1"), signal.SIGKILL)
        return run(team, *words, **settings)

    monkeypatch.setattr(Team, "run", bereft)
    summary, _ = run_text(RPC.format(driver="process", modes='"empty"'), tmp_path)
    (failed,) = [finding for finding in summary.findings if finding.code == "trial-failed"]
    assert "client-1" in failed.message


def test_a_server_that_its_clients_outlive_fails_the_trial(tmp_path: Path) -> None:
    """The file was fine, but starting the clients took longer than there was time for."""
    needs_root("make the network of a sandbox")
    text = RPC.format(driver="process", modes='"empty"').replace('"60s"', '"510ms"')
    summary, _ = run_text(text, tmp_path)
    (failed,) = [finding for finding in summary.findings if finding.code == "trial-failed"]
    assert "rpc.server_duration" in str(failed.evidence["hint"])
