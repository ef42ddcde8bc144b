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
from seatrial.errors import DriverError
from seatrial.model.experiment import NetworkMode
from seatrial.probes import leaks
from tests.integration.conformance.conftest import left_of
from tests.support.needs import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.driver, pytest.mark.fault]

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
    removed = state.sweep(root)
    assert f"state {root / run_id}" in removed
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
