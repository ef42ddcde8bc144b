"""Disks that fill up while a storm of sandboxes runs: where results go, and where sandboxes are.

A start, a trial or the run fails by its kind, what was measured before is kept, and of the
sandboxes nothing stays.
"""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from seatrial.model.trial import TrialStatus
from seatrial.store.run_store import RunStore
from tests.support import troubled_run
from tests.support.needs import needs_driver, needs_root, only_thorough
from tests.support.remains import remains_of
from tests.support.trouble import endings_in, outcomes_of, run_into

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Seatrial

pytestmark = [pytest.mark.fault, pytest.mark.driver, pytest.mark.timeout(300)]

STORM = """
name = "storm"
seed = 3
blocks = {blocks}
baseline = "process"
drivers = [{drivers}]

[start]
concurrency = [{concurrency}]
rounds = 1
deadline = "20s"
control_window = "0s"
"""
FINDING, ENVIRONMENT = 1, 3
FAILED_STARTS = {"exited-early", "timed-out", "spawn-failed"}
#: Containerd's database of metadata alone wants some; what it keeps of an image is 3 MiB.
STATE_BYTES = "48m"
RESULTS_BYTES = "2m"


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own with room for so many bytes and a few thousand names."""
    needs_root("mount a small file system")
    place.mkdir(exist_ok=True)
    options = f"size={size},nr_inodes=4096,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "st-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def storm(
    seatrial: Seatrial, *drivers: str, blocks: int, concurrency: int, extra: str = ""
) -> Path:
    """Writes an experiment."""
    names = ", ".join(f'"{name}"' for name in drivers)
    text = STORM.format(drivers=names, blocks=blocks, concurrency=concurrency)
    return seatrial.experiment(text + extra)


def check_nothing_is_left(seatrial: Seatrial) -> None:
    """While the small disk is still mounted, where the fixture's own look would not see it."""
    for run_dir in seatrial.runs():
        assert remains_of(run_dir.name, state_root=seatrial.state_root) == []
    assert not seatrial.state_root.exists() or list(seatrial.state_root.iterdir()) == []


@pytest.mark.parametrize("driver", ["lean", pytest.param("runc", marks=only_thorough)])
def test_no_room_for_results(seatrial: Seatrial, driver: str) -> None:
    """The disk of the results fills in the second storm: the first is kept, and can be gone on."""
    needs_driver(driver)
    extra = 'background_count = [3]\nbackground = "process"\n'
    file = storm(seatrial, driver, blocks=3, concurrency=30, extra=extra)
    file.write_text(file.read_text().replace('baseline = "process"', f'baseline = "{driver}"'))
    with small_disk(seatrial.home / "runs", RESULTS_BYTES) as disk:
        done = run_into(seatrial, f"full-for-good:{disk}", "batch", f"{driver}:2", file)
        assert done.code == ENVIRONMENT, done.shown
        assert "No space left on device" in done.err, done.shown
        assert "--out" in done.err, done.shown
        check_nothing_is_left(seatrial)
        (kept,) = outcomes_of(seatrial, driver)
        assert endings_in(kept) == ["ok"] * 30
        troubled_run.free(disk)
        (run_dir,) = seatrial.runs()
        done = seatrial.call("run", "--no-html", "--resume", run_dir)
        assert done.code in {0, FINDING}, done.shown
        assert [one.status for one in outcomes_of(seatrial, driver)] == [TrialStatus.OK] * 3
        check_nothing_is_left(seatrial)


@pytest.mark.parametrize(
    "driver",
    [
        "runc",
        *(pytest.param(name, marks=only_thorough) for name in ("lean", "cri/runc", "podman")),
    ],
)
def test_no_room_for_sandboxes(seatrial: Seatrial, driver: str) -> None:
    """Nothing of a sandbox can be made: that trial fails and says why, the others are unharmed."""
    needs_driver(driver)
    file = storm(seatrial, "process", driver, blocks=2, concurrency=3)
    with small_disk(seatrial.state, STATE_BYTES) as disk:
        done = run_into(seatrial, f"full:{disk}", "measure", f"{driver}:1", file)
        check_nothing_is_left(seatrial)
    assert done.code == FINDING, done.shown
    failed, later = outcomes_of(seatrial, driver)
    assert failed.status is TrialStatus.FAILED, done.shown
    assert "No space left on device" in str(failed.reason)
    (finding,) = [one for one in failed.findings if one.code == "trial-failed"]
    assert "traceback" not in finding.evidence, "an error that is foreseen, with its hint"
    assert "XDG_RUNTIME_DIR" in finding.evidence["hint"]
    assert later.status is TrialStatus.OK
    assert endings_in(later) == ["ok"] * 3
    assert [one.status for one in outcomes_of(seatrial, "process")] == [TrialStatus.OK] * 2


@pytest.mark.parametrize(
    "driver", ["runc", "cri/runc", "podman", pytest.param("runsc", marks=only_thorough)]
)
def test_no_room_for_the_runtime(seatrial: Seatrial, driver: str) -> None:
    """The runtime itself cannot write: those starts fail in its own words, and the run goes on."""
    needs_driver(driver)
    file = storm(seatrial, "process", driver, blocks=2, concurrency=3)
    with small_disk(seatrial.state, STATE_BYTES) as disk:
        done = run_into(seatrial, f"full:{disk}", "batch", f"{driver}:1", file)
        check_nothing_is_left(seatrial)
    assert done.code == FINDING, done.shown
    troubled, later = outcomes_of(seatrial, driver)
    assert set(endings_in(troubled)) <= FAILED_STARTS, done.shown
    assert not [one for one in troubled.findings if one.code == "leftovers"], done.shown
    assert "no space left" in " ".join(done.out.lower().split()), done.shown
    assert later.status is TrialStatus.OK
    assert endings_in(later) == ["ok"] * 3, done.shown
    assert [one.status for one in outcomes_of(seatrial, "process")] == [TrialStatus.OK] * 2


@only_thorough
def test_a_disk_that_stays_full(seatrial: Seatrial) -> None:
    """Every later trial fails for the same reason; the run comes to its end and keeps the first."""
    needs_driver("runc")
    file = storm(seatrial, "process", "runc", blocks=2, concurrency=3)
    with small_disk(seatrial.state, STATE_BYTES) as disk:
        done = run_into(seatrial, f"full-for-good:{disk}", "measure", "runc:1", file)
        troubled_run.free(disk)
        check_nothing_is_left(seatrial)
    assert done.code == FINDING, done.shown
    (run_dir,) = seatrial.runs()
    statuses = [one.status for one in RunStore.open(run_dir).outcomes().values()]
    assert len(statuses) == 4
    assert [one.status for one in outcomes_of(seatrial, "runc")] == [TrialStatus.FAILED] * 2
