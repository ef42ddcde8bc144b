"""Storms under trouble: a hundred starts, runtimes that hang, fail or babble, and bystanders.

Whatever happens, the run ends, says what became of each start, and leaves the machine as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from seatrial import network, proc
from seatrial.guest.binary import guest_binary
from seatrial.model.trial import TrialStatus
from seatrial.store.run_store import RunStore
from tests.support.needs import needs_driver, needs_root, only_thorough
from tests.support.remains import remains_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.command import Done, Seatrial

pytestmark = [pytest.mark.fault, pytest.mark.driver, pytest.mark.timeout(300)]

STORM = """
name = "storm"
seed = 3
blocks = {blocks}
baseline = "{driver}"
drivers = ["{driver}"]

[start]
concurrency = [{concurrency}]
rounds = {rounds}
deadline = "{deadline}"
control_window = "0s"
"""


def storm(seatrial: Seatrial, **settings: object) -> Path:
    """Writes an experiment with one storm."""
    usual = {"blocks": 1, "driver": "lean", "concurrency": 100, "rounds": 1, "deadline": "60s"}
    extra = str(settings.pop("extra", ""))
    return seatrial.experiment(STORM.format(**{**usual, **settings}) + extra)


def starts_of(seatrial: Seatrial) -> pl.DataFrame:
    """The measured starts of the only run there is."""
    (run_dir,) = seatrial.runs()
    frames = [pl.read_parquet(path) for path in sorted(run_dir.glob("trials/*/starts.parquet"))]
    starts = pl.concat(frames)
    return starts.filter(~starts["is_floor"])


@pytest.mark.parametrize(
    "driver", ["process", "lean", "lean-prepared", "lean-pooled", "bwrap", "crun", "runc", "runsc"]
)
def test_a_storm_of_a_hundred_leaves_nothing(seatrial: Seatrial, driver: str) -> None:
    """A hundred at once come up, answer, stop and are gone; the fixture looks at the machine."""
    needs_driver(driver)
    file = storm(seatrial, driver=driver, deadline="200s")
    done = seatrial.call("run", "--no-html", file)
    assert done.code in {0, 1}, done.shown  # 1: on a busy machine a finding is no surprise
    starts = starts_of(seatrial)
    assert starts.height == 100
    assert starts["outcome"].to_list() == ["ok"] * 100, done.shown
    assert starts["gone_at_ns"].null_count() == 0, done.shown
    assert "left something behind" not in done.out


@pytest.mark.parametrize(
    "driver", ["lean", *(pytest.param(name, marks=only_thorough) for name in ("process", "runc"))]
)
def test_the_largest_storm(seatrial: Seatrial, driver: str) -> None:
    """Four hundred at once, the most that may be asked for."""
    needs_driver(driver)
    file = storm(seatrial, driver=driver, concurrency=400)
    done = seatrial.call("run", "--no-html", file)
    assert done.code in {0, 1}, done.shown
    starts = starts_of(seatrial)
    assert starts["outcome"].to_list() == ["ok"] * 400, done.shown
    assert starts["gone_at_ns"].null_count() == 0, done.shown
    assert "left something behind" not in done.out


def test_a_storm_for_which_there_is_no_room(seatrial: Seatrial) -> None:
    """With few descriptors the large storm is refused and says why; the small one is measured."""
    needs_driver("lean")
    file = storm(seatrial, concurrency="4, 400")
    few = ["prlimit", "--nofile=256:256", sys.executable, "-m", "seatrial.cli.main"]
    done = seatrial.execute([*few, "run", "--no-html", file])
    assert done.code in {0, 1}, done.shown
    (run_dir,) = seatrial.runs()
    small, large = sorted(RunStore.open(run_dir).outcomes().values(), key=lambda one: one.status)
    assert (small.status, large.status) == (TrialStatus.OK, TrialStatus.SKIPPED), done.shown
    assert "limit-guard: 400 sandboxes of lean would need" in str(large.reason)
    assert "descriptors" in str(large.reason)
    assert "starts" not in large.tables, "refused before any of them was started"
    assert starts_of(seatrial).height == 4


def test_a_storm_beside_company_of_another_runtime(seatrial: Seatrial) -> None:
    """Company is brought up once, kept between its trials, counted, and gone at the end."""
    needs_driver("runc")
    extra = 'background_count = [0, 12]\nbackground = "runc"\nbackground_load = 0.01\n'
    file = storm(seatrial, concurrency=4, blocks=2, extra=extra)
    done = seatrial.call("run", "--no-html", file)
    assert done.code in {0, 1}, done.shown
    assert "background-lost" not in done.out
    (run_dir,) = seatrial.runs()
    found = [
        pl.read_parquet(path).row(0, named=True)
        for path in sorted(run_dir.glob("trials/*/background.parquet"))
    ]
    assert [row["alive_count"] for row in found] == [12, 12]
    # Blocks are 0 then 12, and 12 then 0 others: the second trial with company finds them alive.
    assert [row["started_count"] for row in found] == [12, 0]
    assert all(row["driver"] == "runc" and row["pss_bytes"] > 0 for row in found)


@pytest.mark.parametrize(
    ("driver", "count"),
    [
        ("lean", 50),
        ("lean-prepared", 50),
        ("lean-pooled", 50),
        ("runc", 50),
        ("runsc", 50),
        ("cri/runc", 6),
        pytest.param("podman", 6, marks=only_thorough),
    ],
)
def test_clean_after_a_kill_in_a_storm(seatrial: Seatrial, driver: str, count: int) -> None:
    """`kill -9` with many starts under way beside company; a fresh process removes all of it."""
    needs_driver(driver)
    extra = 'background_count = [5]\nbackground = "process"\n'
    file = storm(seatrial, driver=driver, concurrency=count, blocks=2, extra=extra)
    words = [sys.executable, "-m", "tests.support.killed_run", "batch", "run", "--no-html", file]
    killed = seatrial.execute(words)
    assert killed.code == -signal.SIGKILL, killed.shown
    (run_dir,) = seatrial.runs()
    done = seatrial.call("clean")
    assert done.code == 0, done.shown
    assert remains_of(run_dir.name, state_root=seatrial.state_root) == []
    assert RunStore.open(run_dir).finished_trials(), "the first trial is kept"


# --- runtimes that misbehave ------------------------------------------------------------------

#: Stands before the real runtime: good for the first sandboxes (probe, flags, warm-up, the one
#: that is measured), then bad at every third `run`.
SHIM = """#!/bin/sh
case " $* " in *" run "*) ;; *) exec {real} "$@" ;; esac
n=$(cat {count}/n 2>/dev/null || echo 0)
exec 9>{count}/lock
flock 9
n=$(cat {count}/n 2>/dev/null || echo 0)
echo $((n + 1)) > {count}/n
exec 9>&-
if [ "$n" -ge 3 ] && [ $((n % 3)) -eq 0 ]; then
{trouble}
fi
exec {real} "$@"
"""
TROUBLES = {
    "hangs": ("exec sleep 1000", "timed-out"),
    "exits": ("echo 'no such luck' >&2; exit 1", "exited-early"),
    "babbles": ("head -c 4096 /dev/urandom >&3; sleep 1000", "protocol-error"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_runtime_that_misbehaves_sometimes(
    seatrial: Seatrial, tmp_path: Path, trouble: str
) -> None:
    """A third of the starts fail by their kind; the run goes on, keeps the others, exits with 1."""
    needs_driver("runc")
    real = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    text, outcome = TROUBLES[trouble]
    folder = tmp_path / "bin"
    folder.mkdir()
    shim = folder / "runc"
    shim.write_text(SHIM.format(real=real, count=folder, trouble=text))
    shim.chmod(0o755)
    file = storm(seatrial, driver="runc", concurrency=3, rounds=3, deadline="3s")
    done = seatrial.call(
        "run", "--no-html", file, environment={"PATH": f"{folder}:{os.environ['PATH']}"}
    )
    assert done.code == 1, done.shown
    starts = starts_of(seatrial)
    outcomes = starts["outcome"].to_list()
    assert len(outcomes) == 9
    assert set(outcomes) == {"ok", outcome}, done.shown
    failed = starts.filter(starts["outcome"] != "ok")
    assert failed.height == 3
    assert failed["first_byte_at_ns"].null_count() == 3 or outcome == "protocol-error"
    assert failed["censored"].to_list() == [outcome == "timed-out"] * 3
    assert f"3 {outcome}" in " ".join(done.out.split()), done.shown


def test_failures_and_a_hang_are_counted(seatrial: Seatrial) -> None:
    """A tenth fails and some hang, by a model: the run ends with its ratio, and exits with 1."""
    model = "[driver.fake]\nearly_exit_ratio = 0.1\nhang_ratio = 0.02\n"
    extra = f"\n{model}"
    file = storm(seatrial, driver="fake", concurrency=50, rounds=4, deadline="1s", extra=extra)
    done = seatrial.call("run", "--no-html", "--json", file)
    assert done.code == 1, done.shown
    starts = starts_of(seatrial)
    outcomes = starts["outcome"].to_list()
    assert len(outcomes) == 200
    assert {"exited-early", "timed-out"} < set(outcomes)
    share = outcomes.count("ok") / len(outcomes)
    assert 0.75 < share < 0.97
    (cell,) = [
        one
        for one in json.loads(done.out)["cells"]
        if one["metric"] == "start_success_ratio" and one["driver"] == "fake"
    ]
    assert cell["estimate"]["point"] == pytest.approx(share)


# --- bystanders -------------------------------------------------------------------------------


#: Of this process alone, since another may run the same test.
BYSTANDER = f"bystander-{os.getpid()}"
STRANGER = f"strang{os.getpid() % 10**6}"


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """A container, a cgroup and a network namespace of somebody else, with names like ours."""
    needs_root("make them")
    needs_driver("runc")
    bundle, state = tmp_path / "foreign", tmp_path / "foreign-state"
    write_bundle(bundle)
    hierarchies = [
        path
        for path in Path("/sys/fs/cgroup").iterdir()
        if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()
    ]
    runc = ["runc", "--root", str(state)]
    with contextlib.ExitStack() as undo:
        for name in (f"seatrial-{BYSTANDER}", f"st-{BYSTANDER}"):
            undo.callback(remove_groups, hierarchies, name)
        for place in hierarchies:
            # Two names may lead to one hierarchy.
            (place / f"seatrial-{BYSTANDER}").mkdir(exist_ok=True)
        network.create_veth(namespace=STRANGER, host_interface=STRANGER)
        undo.callback(network.remove_veth, namespace=STRANGER, host_interface=STRANGER)
        undo.callback(
            proc.run, [*runc, "delete", "--force", f"st-{BYSTANDER}"], timeout_s=30, check=False
        )
        start = [*runc, "run", "--detach", "--bundle", str(bundle), f"st-{BYSTANDER}"]
        subprocess.run(
            start,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=True,
        )
        yield {
            "state": state,
            "group": hierarchies[0] / f"seatrial-{BYSTANDER}",
            "namespace": Path("/run/netns") / STRANGER,
            "interface": Path("/sys/class/net") / STRANGER,
        }


def write_bundle(bundle: Path) -> None:
    """Writes a container that runs our guest and has nothing else of ours."""
    rootfs = bundle / "rootfs"
    rootfs.mkdir(parents=True)
    shutil.copy2(guest_binary(), rootfs / "guest")
    proc.run(["runc", "spec"], cwd=bundle, timeout_s=20)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = ["/guest", "--channel-fd", "none", "idle"]
    config["process"]["terminal"] = False
    config["process"].pop("rlimits", None)
    config["linux"]["cgroupsPath"] = f"/st-{BYSTANDER}/box"
    (bundle / "config.json").write_text(json.dumps(config))


def remove_groups(hierarchies: list[Path], name: str) -> None:
    """Removes a group that is empty, in every hierarchy."""
    for path in (place / name for place in hierarchies):
        if path.exists():
            path.rmdir()


def status_of(state: Path) -> str:
    """What runc says about the bystander."""
    said = subprocess.run(
        ["runc", "--root", str(state), "state", f"st-{BYSTANDER}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    status: str = json.loads(said.stdout)["status"]
    return status


def test_bystanders_survive(seatrial: Seatrial, foreign: dict[str, Path]) -> None:
    """A run, a run that is killed, and a clean touch nothing that does not carry a run's label."""
    extra = '\n[network]\nmode = "veth"\n'
    file = storm(seatrial, driver="runc", concurrency=4, blocks=2, extra=extra)
    done: Done = seatrial.call("run", "--no-html", file)
    assert done.code in {0, 1}, done.shown
    words = [sys.executable, "-m", "tests.support.killed_run", "batch", "run", "--no-html", file]
    assert seatrial.execute(words).code == -signal.SIGKILL
    assert seatrial.call("clean").code == 0
    assert status_of(foreign["state"]) == "running"
    for name in ("group", "namespace", "interface"):
        assert foreign[name].exists(), name
