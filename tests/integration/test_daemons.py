"""What goes wrong with daemons and engines: typed, bounded, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry, shared, state
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.drivers.cri import calls, driver, programs
from seatrial.drivers.engine import EngineSession
from seatrial.errors import DriverError, DriverUnavailable
from seatrial.launch import Outcome
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost
from tests.support.needs import needs_driver

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.driver

NS_PER_S = 1_000_000_000
IDLE = SandboxSpec(role=("idle",), deadline_ns=30 * NS_PER_S)


@pytest.fixture
def session() -> Iterator[driver.CriSession]:
    """An open session of cri/runc for a run of its own, of which nothing stays."""
    needs_driver("cri/runc")
    run_id = new_run_id()
    with registry.get("cri/runc").open(DriverContext.for_run(run_id)) as opened:
        assert isinstance(opened, driver.CriSession)
        yield opened
    assert not CgroupHost.detect().group(run_id).directories()
    assert not (state.state_root() / run_id).exists()


def daemon_pid(session: driver.CriSession) -> int:
    """The private containerd's process."""
    shared_daemon = session.shared()
    assert shared_daemon is not None
    (pid,) = [pid for pid, name in shared_daemon.processes.items() if name == "containerd"]
    return pid


def kill(pid: int) -> None:
    """Kill and see it end."""
    os.kill(pid, signal.SIGKILL)
    assert leaks.wait_process_end(pid, deadline_ns=time.monotonic_ns() + 10 * NS_PER_S)


def start(session: driver.CriSession) -> Outcome:
    """Start one that is held; gives what became of it."""
    plan = session.plan(IDLE, 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=60 * NS_PER_S)
    return batch.results[0].outcome


def test_containerd_killed_mid_trial(session: driver.CriSession) -> None:
    """What runs is found and removed, what comes later is refused, and the next one works."""
    plan = session.plan(IDLE, 0)
    later = session.plan(IDLE, 1)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=60 * NS_PER_S)
    assert batch.results[0].outcome is Outcome.OK, batch.results[0]
    pids = session.processes(plan.id)
    kill(daemon_pid(session))
    batch = session.launcher.start([later], wait_for="ready", hold=True, timeout_ns=60 * NS_PER_S)
    result = batch.results[0]
    assert result.outcome is Outcome.EXITED_EARLY, result
    assert "RunPodSandbox" in result.stderr_tail
    with pytest.raises(DriverError, match="has ended") as caught:
        session.plan(IDLE, 2)
    assert caught.value.code == "daemon-gone"
    session.release(plan.id)
    session.release(later.id)
    assert not any(map(leaks.is_alive, pids))
    assert session.audit() == ()


def test_everything_of_a_pod_is_booked_on_it() -> None:
    """A runtime may have a shim for the pod, one for the container, and helpers beside them."""
    needs_driver("cri/runsc")
    with registry.get("cri/runsc").open(DriverContext.for_run(new_run_id())) as opened:
        assert isinstance(opened, driver.CriSession)
        assert start(opened) is Outcome.OK
        (plan_id,) = opened._instances
        deadline_ns = time.monotonic_ns() + 10 * NS_PER_S
        while True:  # they join when the start has been answered
            server = opened.shared()
            assert server is not None
            roles = list(opened.processes(plan_id).values())
            is_alone = set(server.processes.values()) == {"containerd"}
            if (is_alone and roles.count("shim") == 2) or time.monotonic_ns() >= deadline_ns:
                break
            Event().wait(0.05)
        assert is_alone, server.processes
        assert roles.count("shim") == 2, roles
        opened.release(plan_id)
        assert opened.audit() == ()


def test_a_pod_tells_when_it_was_made(session: driver.CriSession) -> None:
    """Each call is answered after the one before it; the last perhaps after the first byte."""
    plan = session.plan(IDLE, 0)
    assert session.milestones(plan.id) == {}
    batch = session.launcher.start([plan], wait_for="reply", hold=True, timeout_ns=60 * NS_PER_S)
    result = batch.results[0]
    stopped = session.stop_watched([plan.id], grace_ns=5 * NS_PER_S, gone_timeout_ns=5 * NS_PER_S)
    gone_at_ns = stopped.gone_at_ns[plan.id]
    found = session.milestones(plan.id)
    assert list(found) == ["pod_at_ns", "container_created_at_ns", "container_started_at_ns"]
    assert result.invoked_at_ns is not None
    assert result.first_byte_at_ns is not None
    assert gone_at_ns is not None
    made = [result.invoked_at_ns, found["pod_at_ns"], found["container_created_at_ns"]]
    for last in (result.first_byte_at_ns, found["container_started_at_ns"]):
        assert [*made, last, gone_at_ns] == sorted([*made, last, gone_at_ns])
    session.release(plan.id)


def test_a_dead_daemon_is_replaced_between_sessions() -> None:
    """A run keeps its daemon, and gets another one when that has died."""
    needs_driver("cri/runc")
    run_id = new_run_id()
    with shared.keep(run_id):
        for _ in range(2):
            with registry.get("cri/runc").open(DriverContext.for_run(run_id)) as opened:
                assert isinstance(opened, driver.CriSession)
                assert start(opened) is Outcome.OK
                pid = daemon_pid(opened)
            assert Path(f"/proc/{pid}").exists()
            kill(pid)
    assert not (state.state_root() / run_id).exists()


def test_an_image_that_is_not_there(session: driver.CriSession) -> None:
    """The server says so, nothing is fetched, and the pod goes."""
    session._image = "seatrial.invalid/none:1"
    plan = session.plan(IDLE, 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=60 * NS_PER_S)
    result = batch.results[0]
    assert result.outcome is Outcome.EXITED_EARLY
    assert "CreateContainer: NOT_FOUND" in result.stderr_tail
    session.release(plan.id)
    assert session.audit() == ()


def test_a_handler_that_is_not_configured(session: driver.CriSession) -> None:
    """The server's own words are the start's."""
    session._handler = "moon"
    plan = session.plan(IDLE, 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=60 * NS_PER_S)
    assert batch.results[0].outcome is Outcome.EXITED_EARLY
    assert 'no runtime for "moon.none" is configured' in batch.results[0].stderr_tail
    session.release(plan.id)
    assert session.audit() == ()


def test_a_frozen_containerd_is_a_time_out(session: driver.CriSession) -> None:
    """The deadline ends the start, and the clean-up is bounded too."""
    spec = SandboxSpec(role=("idle",), deadline_ns=2 * NS_PER_S)
    plan = session.plan(spec, 0)
    pid = daemon_pid(session)
    os.kill(pid, signal.SIGSTOP)
    try:
        batch = session.launcher.start(
            [plan], wait_for="ready", hold=True, timeout_ns=60 * NS_PER_S
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    result = batch.results[0]
    assert result.outcome is Outcome.TIMED_OUT
    assert result.censored
    session.release(plan.id)
    assert start(session) is Outcome.OK


def test_a_pod_that_the_server_first_refuses_to_remove(
    session: driver.CriSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else is left to ask for it, so it is asked for again once nothing of it runs."""
    plan = session.plan(IDLE, 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=60 * NS_PER_S)
    assert batch.results[0].outcome is Outcome.OK, batch.results[0]
    kill(session.launcher.pid)
    refused: list[str] = []
    remove = calls.remove_pod

    def refuse_once(endpoint: Path, pod_id: str) -> None:
        if not refused:
            refused.append(pod_id)
            raise DriverError("StopPodSandbox: UNKNOWN (2): ttrpc: closed")
        remove(endpoint, pod_id)

    monkeypatch.setattr(calls, "remove_pod", refuse_once)
    session.release(plan.id)
    assert len(refused) == 1
    assert session.audit() == ()


def test_a_snapshotter_that_does_not_exist() -> None:
    """The log's words are in the error, and nothing stays."""
    needs_driver("cri/runc")
    run_id = new_run_id()
    context = DriverContext.for_run(run_id, options={"snapshotter": "moon"})
    with pytest.raises(DriverUnavailable, match=r"does not load.*moon"):
        registry.get("cri/runc").open(context)
    assert not (state.state_root() / run_id).exists()


def test_a_containerd_that_takes_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the import failed is an error of its own, and nothing stays."""
    needs_driver("cri/runc")
    find = programs.find_programs

    def without_ctr(name: str, *, elsewhere: str) -> object:
        handler, found = find(name, elsewhere=elsewhere)
        return handler, {**found, "ctr": Path("/bin/false")}

    for module in (programs, driver):
        monkeypatch.setattr(module, "find_programs", without_ctr)
    run_id = new_run_id()
    with pytest.raises(DriverError, match="does not take the guest's image") as caught:
        registry.get("cri/runc").open(DriverContext.for_run(run_id))
    assert caught.value.code == "cri-image"
    assert not (state.state_root() / run_id).exists()


def test_podman_that_takes_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine says is in the error, and nothing stays."""
    needs_driver("podman")
    run_id = new_run_id()
    context = DriverContext.for_run(run_id)
    monkeypatch.setattr(EngineSession, "_words", lambda _: ("/bin/false",))
    with pytest.raises(DriverError, match="does not take") as caught:
        registry.get("podman").open(context)
    assert caught.value.code == "engine-image"
    assert not (state.state_root() / run_id).exists()


def test_sweep_removes_a_dead_runs_daemon(session: driver.CriSession) -> None:
    """A fresh process finds the daemon, its shims and its sockets by the run's label."""
    assert start(session) is Outcome.OK
    directory = session.context.state_dir
    owner = state.Owner.read(directory)
    assert owner is not None
    removed = state.remove_run(owner, directory)
    assert any("containerd" in line for line in removed)
    assert any(line.startswith("socket /run/containerd/s/") for line in removed)
    assert not directory.exists()
