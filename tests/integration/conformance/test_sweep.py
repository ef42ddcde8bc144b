"""After ``kill -9``: what a fresh process removes by label, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial import proc
from seatrial.drivers import registry, state
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id, state_root
from seatrial.drivers.stale import would_remove
from seatrial.errors import DriverError
from seatrial.model.experiment import NetworkMode
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost
from tests.integration.conformance.conftest import left_of
from tests.support.needs import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.driver, pytest.mark.fault]

needs_groups = pytest.mark.skipif(
    not CgroupHost.detect().is_writable, reason="no control groups can be made here"
)

DEADLINE_NS = 60_000_000_000
END_TIMEOUT_NS = 20_000_000_000
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of this test's own, with a path short enough for sockets."""
    directory = tempfile.mkdtemp(prefix="st-", dir="/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    yield state_root()
    shutil.rmtree(directory)


def hold_and_kill(name: str, run_id: str) -> dict[str, list[int]]:
    """Run an owner with two live sandboxes, kill it without a chance, and give its pids."""
    modes = probe(name).capabilities.network_modes
    network = NetworkMode.VETH if NetworkMode.VETH in modes else NetworkMode.NONE
    argv = [sys.executable, "-m", "tests.support.holder", name, run_id, network]
    path = f"{REPOSITORY / 'python'}:{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path}
    with proc.spawn(argv, env=environment, cwd=REPOSITORY, stdout="pipe") as owner:
        assert owner.stdout is not None
        said = json.loads(owner.stdout.readline() or "{}")
        assert said.get("pids"), "the owner did not come up"
        owner.kill()
    return said


def test_a_killed_owner_is_swept(name: str, root: Path) -> None:
    """Processes, groups, networks, mounts and files of a dead run go; nothing else does."""
    run_id = new_run_id()
    said = hold_and_kill(name, run_id)
    assert left_of(run_id, root / run_id)
    # What outlived the owner changes by itself; the directory goes last, and only by a sweep.
    told = would_remove(root)
    assert f"state {root / run_id}" in told
    assert (root / run_id).is_dir()
    removed = state.sweep(root)
    assert f"state {root / run_id}" in removed
    assert would_remove(root) == []
    assert left_of(run_id, root / run_id) == []
    deadline_ns = time.monotonic_ns() + END_TIMEOUT_NS
    assert all(leaks.wait_process_end(pid, deadline_ns=deadline_ns) for pid in said["pids"])
    assert state.sweep(root) == []


def test_a_live_owner_is_left_alone(root: Path) -> None:
    """A sweep beside a run that is under way removes the dead one's things only."""
    dead, alive = new_run_id(), new_run_id()
    with registry.get("process").open(DriverContext.for_run(alive)) as session:
        plan = session.plan(SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS), 0)
        session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
        hold_and_kill("process", dead)
        removed = state.sweep(root)
        assert all(alive not in line for line in removed)
        assert f"state {root / dead}" in removed
        assert session.processes(plan.id)
        with pytest.raises(DriverError, match="still running"):
            foreign_acquire(alive, root)
    assert state.sweep(root) == []


def test_a_killed_launcher_leaves_nothing_after_close(name: str, root: Path) -> None:
    """When the launcher is killed its sandboxes end, and the session still removes the rest."""
    run_id = new_run_id()
    with registry.get(name).open(DriverContext.for_run(run_id)) as session:
        plan = session.plan(SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS), 0)
        session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
        os.kill(session.launcher.pid, 9)
        with pytest.raises(DriverError):
            session.launcher.stop(how="request")
        session.release(plan.id)
        assert session.audit() == ()
    assert left_of(run_id, root / run_id) == []


def own_groups(run_id: str) -> list[str]:
    """The lines by which a sweep says that it removed the groups of a run."""
    return [f"cgroup {path}" for path in CgroupHost.detect().group(run_id).directories()]


@needs_groups
def test_groups_whose_run_has_no_directory_are_swept(root: Path) -> None:
    """The directory of a killed run may be gone with the login it was made in."""
    run_id = new_run_id()
    said = hold_and_kill("process", run_id)
    deadline_ns = time.monotonic_ns() + END_TIMEOUT_NS
    assert all(leaks.wait_process_end(pid, deadline_ns=deadline_ns) for pid in said["pids"])
    shutil.rmtree(root / run_id)
    groups = own_groups(run_id)
    assert groups
    assert set(groups) <= set(state.sweep(root))
    assert left_of(run_id, root / run_id) == []
    assert state.sweep(root) == []


@needs_groups
def test_groups_of_a_live_run_stay_without_its_directory(root: Path) -> None:
    """Neither between two sandboxes nor with one; its own end removes them."""
    run_id = new_run_id()
    with registry.get("process").open(DriverContext.for_run(run_id)) as session:
        shutil.rmtree(root / run_id)
        groups = own_groups(run_id)
        assert groups
        assert not [line for line in state.sweep(root) if run_id in line]
        assert own_groups(run_id) == groups
        session.directory.mkdir(parents=True)
        plan = session.plan(SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS), 0)
        session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
        assert not [line for line in state.sweep(root) if run_id in line]
        assert session.processes(plan.id)
    assert own_groups(run_id) == []


@needs_groups
def test_groups_with_processes_or_of_other_names_stay(root: Path) -> None:
    """A group that somebody else made there, or in which something runs, is not ours to take."""
    host = CgroupHost.detect()
    busy, foreign = host.create(f"{new_run_id()}/001"), host.create("of-somebody-else")
    try:
        with proc.spawn(["sleep", "60"]) as sleeper:
            for file in busy.join_files:
                file.write_text(str(sleeper.pid))
            state.sweep(root)
            assert sleeper.pid in busy.members()
            assert busy.directories()
            sleeper.kill()
        assert {f"cgroup {path.parent}" for path in busy.directories()} <= set(state.sweep(root))
        assert busy.directories() == ()
        assert foreign.directories()
    finally:
        busy.remove()
        foreign.remove()


def test_a_run_is_taken_over_from_a_dead_owner(root: Path) -> None:
    """Resuming a killed run removes what its first owner left, and works under the same id."""
    run_id = new_run_id()
    hold_and_kill("process", run_id)
    with registry.get("process").open(DriverContext.for_run(run_id)) as session:
        plan = session.plan(SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS), 0)
        batch = session.launcher.start([plan], wait_for="ready", hold=False, timeout_ns=DEADLINE_NS)
        assert batch.results[0].outcome == "ok"
    assert left_of(run_id, root / run_id) == []


def foreign_acquire(run_id: str, root: Path) -> None:
    """Try to open a run as another process would: without this process's memory of it."""
    directory = root / run_id
    owner = state.Owner.read(directory)
    assert owner is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.RunState, "_live", {})
        patch.setattr(state.os, "getpid", lambda: owner.pid + 1)
        state.RunState.acquire(run_id, directory)
