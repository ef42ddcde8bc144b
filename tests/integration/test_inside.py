"""The bench `inside` on real sandboxes: everything is tried, bytes are counted, nothing stays."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from seatrial.benches import inside_probes
from seatrial.benches.inside_metrics import MEASURED
from seatrial.guest.toolbox import make_toolbox
from seatrial.model.experiment import InsideTest
from seatrial.model.finding import Severity
from seatrial.model.summary import Status
from seatrial.probes.noise import NoiseMonitor
from seatrial.store.run_store import RunStore
from tests.support.fake_run import run_text
from tests.support.needs import needs_driver, needs_root, only_thorough

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from seatrial.model.summary import RunSummary

pytestmark = [pytest.mark.driver, pytest.mark.timeout(300)]

EVERYTHING = """
name = "inside"
blocks = 1
baseline = "{driver}"
drivers = ["{driver}"]
[inside]
tests = ["probes", "hello", "memory", "dd", "fio", "network", "functions"]
batches = 2
repeats = 1
dd_count = 4096
fio_variants = ["seed", "direct"]
fio_jobs = ["randrw"]
fio_size = "1MiB"
fio_threads = 2
fio_duration = "1s"
network_duration = "1s"
download = "2MiB"
function_limit = 5000
"""


@pytest.fixture(params=["process", "lean", "runsc", pytest.param("qemu", marks=only_thorough)])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A driver that works here, on a machine that has the tools."""
    needs_root("make the network of a sandbox")
    name: str = request.param
    needs_driver(name)
    missing = make_toolbox().missing
    if missing:
        pytest.skip("; ".join(missing.values()))
    # No number is judged here, so none has to wait for a quiet machine.
    monkeypatch.setattr(NoiseMonitor, "wait_until_quiet", lambda _self: (0, True))
    if name != "runsc":  # only gVisor's clock has to be calibrated
        monkeypatch.setattr(inside_probes, "WARM_UP_NS", 100_000_000)
    return name


def analysed(text: str, folder: Path) -> tuple[RunSummary, dict[str, pl.DataFrame], Path]:
    """Runs an experiment: its summary, the tries of all its trials by point, its directory."""
    summary, path = run_text(text, folder)
    with RunStore.open(path) as store:
        points = {spec.trial_id: spec.point.key for spec in store.manifest.plan.trials}
        attempts = {
            points[trial_id]: store.read_table(trial_id, "attempts")
            for trial_id in store.outcomes()
            if "attempts" in store.table_names(trial_id)
        }
    return summary, attempts, path


def test_everything_inside(driver: str, tmp_path: Path) -> None:
    """Each piece of work gives its numbers, with its bytes, books and route beside them."""
    summary, attempts, run = analysed(EVERYTHING.format(driver=driver), tmp_path)
    lost = {
        (one.work, one.metric, one.status, one.reason)
        for one in summary.scores
        if one.value is None
    }
    assert not lost
    errors = [one for one in summary.findings if one.severity is Severity.ERROR]
    assert not errors
    check_books(attempts["inside test=hello"])
    check_bytes(driver, summary, attempts)
    assert set(attempts["inside test=network"]["route"].to_list()) == {"veth pair"}
    measured = {one.metric for one in summary.scores}
    for test in (InsideTest.HELLO, InsideTest.MEMORY, InsideTest.DD, InsideTest.NETWORK):
        assert {name for names in MEASURED[test].values() for name in names} <= measured
    assert all(len(one.first) == 1 for one in summary.scores)
    assert not (run / "scratch").exists()


def check_books(hello: pl.DataFrame) -> None:
    """The sandbox's own CPU time is in its group, whatever its client used (G2)."""
    for row in hello.iter_rows(named=True):
        assert row["outcome"] == "ok"
        assert row["cgroup_cpu_ns"] > 0
        assert row["user_ns"] + row["system_ns"] > 0


def check_bytes(driver: str, summary: RunSummary, attempts: dict[str, pl.DataFrame]) -> None:
    """Direct I/O reaches the device, or is marked; tools and kernel count the same file."""
    for variant in ("seed", "direct"):
        rows = attempts[f"inside test=fio variant={variant}"]
        assert rows["is_direct"].all()
        assert (rows["read_bytes"] > 0).all()
    dd = attempts["inside test=dd"]
    moved = dd["read_bytes"] + dd["written_bytes"]
    assert set(moved.to_list()) == {4096 * 256}
    if dd["device_read_bytes"].null_count():
        assert all("device-unknown" in one.marks for one in summary.scores if one.work == "write")
        return
    for one in summary.scores:
        if one.point.values.get("test") == "fio" and driver != "runsc":
            assert one.device_ratio is not None
            assert one.device_ratio >= 0.9, one
        if one.is_direct and one.device_ratio is not None and one.device_ratio < 0.9:
            assert "cached" in one.marks


MEMORY = """
name = "memory"
blocks = 1
baseline = "cri/runc"
drivers = ["cri/runc"]
[density]
count = [1]
readings = 1
idle_window = "100ms"
[inside]
tests = ["memory"]
repeats = 2
"""


def test_two_benches_agree_on_the_memory_of_a_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shims join it after its guest has answered, and are in both numbers."""
    needs_driver("cri/runc")
    monkeypatch.setattr(NoiseMonitor, "wait_until_quiet", lambda _self: (0, True))
    summary, _, path = analysed(MEMORY, tmp_path)
    (inside,) = [one for one in summary.scores if one.metric == "idle_pss_bytes"]
    with RunStore.open(path) as store:
        (trial,) = [one for one in store.outcomes() if "memory" in store.table_names(one)]
        readings = store.read_table(trial, "memory")
    (density_bytes,) = readings.filter(readings["is_final"])["pss_bytes"].to_list()
    # Without the shims it is an eighth; what neighbours share of their pages comes and goes.
    assert inside.value == pytest.approx(density_bytes, rel=0.5)


def test_a_machine_without_a_tool_skips_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is done, and the reason is in the report."""
    needs_driver("process")
    box = make_toolbox()
    if box.missing:
        pytest.skip("tools are missing here in earnest")
    poorer = dataclasses.replace(box, missing={"python3": "python3 is not installed"})
    monkeypatch.setattr("seatrial.benches.inside_tools.make_toolbox", lambda: poorer)
    text = EVERYTHING.format(driver="process").replace(
        'tests = ["probes", "hello", "memory", "dd", "fio", "network", "functions"]',
        'tests = ["functions"]',
    )
    summary, _, _ = analysed(text, tmp_path)
    statuses = {one.metric: (one.status, one.reason) for one in summary.scores}
    assert statuses["function_python_ns"] == (Status.SKIPPED, "python3 is not installed")
    assert statuses["function_native_ns"][0] is Status.UNSURE
    assert [one.code for one in summary.findings if one.code == "skipped"] == ["skipped"]


def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    """The try has failed, the run goes on, and nothing of it stays."""
    needs_driver("process")
    text = EVERYTHING.format(driver="process").replace(
        'tests = ["probes", "hello", "memory", "dd", "fio", "network", "functions"]',
        'tests = ["dd"]\ndeadline = "1500ms"',
    )
    slow = text.replace("dd_count = 4096", 'dd_count = 16777216\ndd_block = "1B"')
    summary, attempts, _ = analysed(slow, tmp_path)
    rows = attempts["inside test=dd"]
    assert set(rows.filter(rows["work"] == "write")["outcome"].to_list()) == {"timed-out"}
    statuses = {one.metric: one.status for one in summary.scores}
    assert statuses["dd_write_bytes_per_s"] is Status.FAILED
    assert any(one.code == "tries-failed" for one in summary.findings)


def test_a_sandbox_without_tools_still_says_hello(tmp_path: Path) -> None:
    """The scripted runtime can bind nothing: its probes and hellos run, the rest is skipped."""
    summary, _, _ = analysed(EVERYTHING.format(driver="fake"), tmp_path)
    statuses = {(one.work, one.status) for one in summary.scores}
    assert ("hello", Status.UNSURE) in statuses
    assert ("syscall", Status.UNSURE) in statuses
    assert ("randrw", Status.SKIPPED) in statuses
    assert ("wget", Status.SKIPPED) in statuses
