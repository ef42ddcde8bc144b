"""`kill -9` at any point: what was finished is kept, `--resume` does the rest, nothing is left."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial.errors import ConfigError
from seatrial.model.trial import TrialStatus
from seatrial.run.prepare import check_resume
from seatrial.store.run_store import RunStore
from tests.support.needs import needs_driver, needs_root
from tests.support.remains import processes_of, remains_of

if TYPE_CHECKING:
    from tests.support.command import Done, Seatrial

pytestmark = [pytest.mark.fault, pytest.mark.driver, pytest.mark.timeout(300)]

#: As small as it can be; two blocks, so that there is a trial before the one that dies.
EXPERIMENT = """
name = "killed"
seed = 7
blocks = 2
baseline = "{driver}"
drivers = ["{driver}"]

[start]
concurrency = [4]
rounds = 2
control_window = "20ms"
"""
HELD = """
[load]
connections = [1]
rates = []
duration = "100ms"
warm_up = "10ms"
drain = "10ms"
"""
AGENTS = {
    "fleet": """
[fleet]
counts = [2]
layouts = ["sandboxes"]
rates = ["100/s"]
duration = "100ms"
warm_up = "0ns"
drain = "1s"
""",
    "rpc": """
[rpc]
modes = ["empty"]
clients = [2]
client_duration = "100ms"
warm_up = "0ns"
interval = "50ms"
""",
}
PHASES = ("setup", "warm-up", "measure", "drain", "teardown")
#: Every point with the baseline; with the others those at which sandboxes are alive.
KILLS = (
    *(("process", f"phase:{phase}") for phase in PHASES),
    ("process", "batch"),
    ("process", "store:before"),
    ("process", "store:after"),
    ("lean", "phase:measure"),
    ("bwrap", "batch"),
    ("runc", "phase:measure"),
    ("runsc", "phase:measure"),
)


def killed(seatrial: Seatrial, point: str, *, driver: str) -> Path:
    """Begins a run that dies at a point, and gives its directory."""
    file = seatrial.experiment(EXPERIMENT.format(driver=driver) + HELD)
    words = [sys.executable, "-m", "tests.support.killed_run", point, "run", "--no-html", file]
    done = seatrial.execute(words)
    assert done.code == -signal.SIGKILL, done.shown
    (run_dir,) = seatrial.runs()
    return run_dir


def contents(run_dir: Path, trial_ids: set[str]) -> dict[str, str]:
    """A hash of each file of some trials."""
    return {
        str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for trial_id in trial_ids
        for path in (run_dir / "trials" / trial_id).iterdir()
    }


def check_is_complete(run_dir: Path, done: Done) -> None:
    """Every trial of the plan is there and went well."""
    store = RunStore.open(run_dir)
    outcomes = store.outcomes()
    planned = {spec.trial_id for spec in store.manifest.plan.trials}
    assert set(outcomes) == planned, done.shown
    failed = {key: one.reason for key, one in outcomes.items() if one.status is not TrialStatus.OK}
    assert not failed, done.shown


@pytest.mark.parametrize(("driver", "point"), KILLS)
def test_a_killed_run_is_resumed(seatrial: Seatrial, driver: str, point: str) -> None:
    """Finished trials stay as they were, the others are done by `--resume`, and nothing is left."""
    needs_driver(driver)
    run_dir = killed(seatrial, point, driver=driver)
    kept = RunStore.open(run_dir).finished_trials()
    assert kept, "the first trial had been finished"
    before = contents(run_dir, kept)

    done = seatrial.call("run", "--no-html", "--resume", run_dir)

    assert done.code in {0, 1}, done.shown  # 1: on a busy machine a finding is no surprise
    check_is_complete(run_dir, done)
    assert contents(run_dir, kept) == before
    assert remains_of(run_dir.name, state_root=seatrial.state_root) == []


@pytest.mark.parametrize(
    ("driver", "point"),
    [
        ("process", "batch"),
        ("process", "phase:measure"),
        ("lean", "batch"),
        ("bwrap", "phase:measure"),
        ("runc", "batch"),
        ("runsc", "phase:measure"),
    ],
)
def test_clean_after_a_kill_leaves_nothing(seatrial: Seatrial, driver: str, point: str) -> None:
    """`seatrial clean` removes what a killed run left; the results stay readable."""
    needs_driver(driver)
    run_dir = killed(seatrial, point, driver=driver)

    done = seatrial.call("clean")

    assert done.code == 0, done.shown
    assert remains_of(run_dir.name, state_root=seatrial.state_root) == []
    assert RunStore.open(run_dir).finished_trials()
    again = seatrial.call("clean")
    assert (again.code, again.out) == (0, ""), again.shown


@pytest.mark.parametrize("table", ["fleet", "rpc"])
def test_a_killed_run_leaves_no_agents(seatrial: Seatrial, table: str) -> None:
    """Agents end when their coordinator is gone, and `seatrial clean` removes the rest."""
    needs_driver("lean")
    needs_root("make the network of a sandbox")
    file = seatrial.experiment(
        EXPERIMENT.format(driver="lean").partition("[start]")[0] + AGENTS[table]
    )
    words = [sys.executable, "-m", "tests.support.killed_run", "phase:measure", "run", "--no-html"]
    done = seatrial.execute([*words, file])
    assert done.code == -signal.SIGKILL, done.shown
    (run_dir,) = seatrial.runs()
    for pid in agents_below(seatrial.state):
        assert wait_until_gone(pid), f"agent {pid} outlived the run"

    assert seatrial.call("clean").code == 0
    assert remains_of(run_dir.name, state_root=seatrial.state_root) == []


def agents_below(state: Path) -> list[int]:
    """Live load agents of a command line with this state directory."""
    mark = f"XDG_RUNTIME_DIR={state}\0".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_agent = b"seatrial.agents" in (folder / "cmdline").read_bytes()
            if is_agent and mark in (folder / "environ").read_bytes() + b"\0":
                found.append(int(folder.name))
        except OSError:  # it ended while we looked
            continue
    return found


def test_a_killed_run_takes_its_sandboxes_along(seatrial: Seatrial) -> None:
    """No sandbox of the baseline outlives the run by itself: its channel closes, so it ends."""
    needs_driver("process")
    run_dir = killed(seatrial, "phase:measure", driver="process")
    for pid in processes_of(run_dir.name):
        assert wait_until_gone(pid), f"process {pid} outlived the run"
    assert seatrial.call("clean").code == 0


def wait_until_gone(pid: int) -> bool:
    """Waits for the end of a process that is not our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_resuming_a_finished_run_repeats_nothing(seatrial: Seatrial) -> None:
    """`--resume` of a run that is complete changes no result."""
    needs_driver("process")
    file = seatrial.experiment(EXPERIMENT.format(driver="process"))
    first = seatrial.call("run", "--no-html", file)
    (run_dir,) = seatrial.runs()
    check_is_complete(run_dir, first)
    finished = RunStore.open(run_dir).finished_trials()
    before = contents(run_dir, finished)

    done = seatrial.call("run", "--no-html", "--resume", run_dir)

    assert done.code in {0, 1}, done.shown
    assert contents(run_dir, finished) == before
    assert seatrial.runs() == [run_dir]


def test_resuming_under_other_conditions(seatrial: Seatrial) -> None:
    """What was begun by another version is not finished by this one, unless somebody insists."""
    needs_driver("process")
    run_dir = killed(seatrial, "phase:measure", driver="process")
    manifest = run_dir / "manifest.json"
    content = json.loads(manifest.read_text())
    content["versions"]["drivers"]["process"] = "0.0.1"
    manifest.write_text(json.dumps(content))

    with pytest.raises(ConfigError, match=r"process was 0\.0\.1") as caught:
        check_resume(RunStore.open(run_dir), is_forced=False, allows_debug_core=False)
    assert caught.value.code == "resume-differs"
    refused = seatrial.call("run", "--no-html", "--resume", run_dir)
    assert (refused.code, refused.out) == (2, ""), refused.shown
    assert "--force" in refused.err

    forced = seatrial.call("run", "--no-html", "--force", "--resume", run_dir)
    check_is_complete(run_dir, forced)


def test_clean_leaves_a_live_run_alone(seatrial: Seatrial) -> None:
    """`seatrial clean` beside a run that still goes on removes nothing of it."""
    needs_driver("process")
    file = seatrial.experiment(EXPERIMENT.format(driver="process") + HELD)
    words = [sys.executable, "-m", "tests.support.cleaned_run", "run", "--no-html", file]
    done = seatrial.execute(words)
    assert done.code in {0, 1}, done.shown
    assert "clean removed nothing" in done.err, done.shown
    (run_dir,) = seatrial.runs()
    check_is_complete(run_dir, done)
