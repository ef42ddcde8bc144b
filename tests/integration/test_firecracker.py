"""The firecracker driver against a monitor that checks the published API: no KVM is needed.

Real: the driver, the program that makes the calls and carries the channel, the launcher, and the
guest. Not real: the monitor and its machine, which is a process here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry
from seatrial.drivers.base import ProbeStatus, SandboxSpec
from seatrial.errors import DriverError
from seatrial.launch import Outcome
from tests.support import fake_firecracker
from tests.support.channel import STOP, Channel
from tests.support.firecrackers import (
    DEADLINE_NS,
    IDLE,
    Monitor,
    install,
    left_clean,
    opened,
    started,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Monitor:
    """A fake Firecracker on PATH."""
    return install(tmp_path, monkeypatch)


def test_a_machine_is_configured_and_talks(monitor: Monitor) -> None:
    """The calls are those of the published shape, in an order that it takes; the guest answers."""
    spec = SandboxSpec(role=("idle",), memory_limit_bytes=256 << 20, deadline_ns=DEADLINE_NS)
    with opened("firecracker") as session:
        if not session.capabilities.can_limit:
            spec = IDLE
        plan_id, result = started(session, spec)
        assert result.outcome is Outcome.OK, result
        assert set(session.processes(plan_id).values()) >= {"runtime", "vmm"}
        with Channel(session.launcher.channel(plan_id)) as channel:
            assert channel.ping(b"x" * 60_000) == b"x" * 60_000
            assert channel.run({"probe": "syscall", "iterations": 10, "batches": 2})["batch_ns"]
            channel.send(STOP)
            left_clean(session, plan_id)
    paths = [call["path"] for call in monitor.calls()]
    assert paths == ["/machine-config", "/boot-source", "/vsock", "/actions"]
    machine = monitor.calls()[0]["body"]
    assert machine == {"vcpu_count": 1, "mem_size_mib": 256 if spec is not IDLE else 128}


def test_a_machine_that_is_asked_to_stop_ends_well(monitor: Monitor) -> None:
    """Exit code 0 means that somebody wanted it."""
    with opened("firecracker") as session:
        plan_id, result = started(session)
        assert result.outcome is Outcome.OK, result
        (stop,) = session.launcher.stop([plan_id], how="request")
        assert (stop.exit_code, stop.signal) == (0, None)
        left_clean(session, plan_id)
    assert monitor.calls()


@pytest.mark.parametrize(
    ("settings", "role", "words"),
    [
        ({"refuse": "/vsock"}, "idle", "refused PUT /vsock: status 400"),
        ({"dies": "KVM: cannot open"}, "idle", "KVM: cannot open"),
        ({}, "nonsense", "unknown role nonsense"),
    ],
)
def test_failures_have_their_reasons(
    monitor: Monitor, settings: dict[str, str], role: str, words: str
) -> None:
    """What the monitor or the guest said last is in the result, and nothing stays."""
    monitor.set(**settings)
    with opened("firecracker") as session:
        spec = SandboxSpec(role=(role,), deadline_ns=DEADLINE_NS)
        plan_id, result = started(session, spec)
        assert result.outcome is Outcome.EXITED_EARLY, result
        assert result.exit_code == 1
        assert words in f"{result.error} {result.stderr_tail}"
        left_clean(session, plan_id)


def test_a_copy_of_a_snapshot(monitor: Monitor) -> None:
    """One machine is written down; each start loads it, and the copy gets its own role."""
    with opened("firecracker-snapshot") as session:
        for _ in range(2):
            plan_id, result = started(session)
            assert result.outcome is Outcome.OK, result
            session.launcher.stop([plan_id], how="request")
            left_clean(session, plan_id)
    paths = [call["path"] for call in monitor.calls()]
    assert paths[3:6] == ["/actions", "/vm", "/snapshot/create"]
    assert paths[6:] == ["/snapshot/load"] * 2


def test_a_machine_that_is_no_copy_is_found_out(monitor: Monitor) -> None:
    """It says another boot id than the template did."""
    with opened("firecracker-snapshot") as session:
        session.plan(IDLE, 0)
        monitor.set(boot_id="another")
        plan_id, result = started(session)
        assert result.outcome is Outcome.EXITED_EARLY, result
        assert "is no copy of its template" in result.stderr_tail
        left_clean(session, plan_id)


def test_a_snapshot_has_no_disks(monitor: Monitor, tmp_path: Path) -> None:
    """That is refused, and not silently done without."""
    spec = SandboxSpec(role=("idle",), data_dir=tmp_path, deadline_ns=DEADLINE_NS)
    with opened("firecracker-snapshot") as session:
        with pytest.raises(DriverError, match="no disks of its own") as caught:
            session.plan(spec, 0)
        assert caught.value.code == "unsupported"
        assert session.audit() == ()
    assert not (monitor.home / "calls.jsonl").exists()


def test_the_probe_tries(monitor: Monitor) -> None:
    """Where no machine comes up, the monitor's own words and the way out are in its answer."""
    monitor.set(dies="Cannot open /dev/kvm")
    result = registry.get("firecracker").probe()
    assert result.status is ProbeStatus.BROKEN
    assert "Cannot open /dev/kvm" in result.detail
    assert "KVM" in (result.hint or "")


def test_what_the_fake_refuses() -> None:
    """A test against it means something: it knows what is missing and what is unknown."""
    shape = fake_firecracker.check_shape
    assert shape("PUT", "/vsock", {"guest_cid": 3, "uds_path": "v"}) is None
    assert "missing" in str(shape("PUT", "/vsock", {"guest_cid": 3}))
    assert "unknown" in str(shape("PATCH", "/vm", {"state": "Paused", "fast": True}))
    assert "no GET" in str(shape("GET", "/vsock", {}))
    body: dict[str, object] = {"drive_id": "b", "is_root_device": False}
    assert "different" in str(shape("PUT", "/drives/a", body))
