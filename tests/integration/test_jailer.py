"""Firecracker locked in by its jailer, against stand-ins that do what the documentation says.

Real: the driver, the launcher, the guest, and of the jailer all but the program itself: a root of
its own in a mount namespace of its own, device files, another user, nothing in the environment.
The state directory is on a file system without programs and device files, as /run is by default.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from seatrial import proc
from seatrial.drivers import jail, registry, state
from seatrial.drivers.base import ProbeStatus, SandboxSpec, new_run_id, state_root
from seatrial.drivers.stale import would_remove
from seatrial.errors import DriverUnavailable
from seatrial.launch import Outcome
from seatrial.model.experiment import NetworkMode
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost
from tests.support.channel import Channel
from tests.support.firecrackers import (
    DEADLINE_NS,
    IDLE,
    REPOSITORY,
    Monitor,
    install,
    left_clean,
    opened,
    started,
)
from tests.support.needs import needs_root
from tests.support.remains import mounts_under, remains_of

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = ["firecracker", "firecracker-snapshot"]
JAILED = {"jailer": True}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory as /run mostly is: neither programs nor device files can be used there."""
    needs_root("lock a process in")
    if not CgroupHost.detect().is_writable:
        pytest.skip("no control groups can be made here")
    directory = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    options = "nosuid,nodev,noexec,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "st-test", directory], check=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    try:
        yield state_root()
        assert mounts_under(directory) == [str(directory)]
        assert not state_root().exists() or list(state_root().iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
        directory.rmdir()


@pytest.fixture
def monitor(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Monitor:
    """A fake Firecracker and a fake jailer on PATH."""
    del place
    installed = install(tmp_path, monkeypatch)
    installed.put("jailer")
    return installed


def bodies(monitor: Monitor, path: str) -> list[dict[str, object]]:
    """What the calls of one path said."""
    found = [call["body"] for call in monitor.calls() if call["path"] == path]
    return [body for body in found if isinstance(body, dict)]


def test_a_machine_that_is_locked_in(monitor: Monitor) -> None:
    """Its monitor has another root, another user and no label, and yet is in the books."""
    with opened("firecracker", JAILED) as session:
        assert session.flags["jailer"] == "1.13.0, uid 61000, gid 61000"
        plan_id, result = started(session)
        assert result.outcome is Outcome.OK, result
        roles = session.processes(plan_id)
        assert sorted(roles.values()).count("vmm") == 1
        (pid,) = [pid for pid, role in roles.items() if role == "vmm"]
        here, there = Path("/proc/self/root"), Path(f"/proc/{pid}/root")
        assert not there.samefile(here)
        assert {"vmlinux", "initrd.cpio", "dev", "a", "v"} <= {
            path.name for path in there.iterdir()
        }
        status = Path(f"/proc/{pid}/status").read_text()
        assert "\nUid:\t61000\t61000\t61000\t61000\n" in status
        assert "\nGid:\t61000\t61000\t61000\t61000\n" in status
        assert pid not in leaks.processes_with(state.SANDBOX_VARIABLE)
        cpu = session.cgroups(plan_id).read_cpu()
        assert cpu is not None
        assert cpu.total_ns > 0
        with Channel(session.launcher.channel(plan_id)) as channel:
            assert channel.ping(b"x" * 60_000) == b"x" * 60_000
        (stop,) = session.launcher.stop([plan_id], how="request")
        assert (stop.exit_code, stop.signal) == (0, None)
        left_clean(session, plan_id)
        assert session.litter == {}
    source = bodies(monitor, "/boot-source")[0]
    assert (source["kernel_image_path"], source["initrd_path"]) == ("/vmlinux", "/initrd.cpio")
    (jailed,) = monitor.read("jails.jsonl")
    assert str(jailed["root"]).endswith(f"/{plan_id[-8:]}/firecracker/{plan_id[-8:]}/root")


def test_disks_and_a_network_reach_inside(monitor: Monitor, tmp_path: Path) -> None:
    """The data's disk, on another file system, is mounted there; the tap is the user's."""
    data, tools = tmp_path / "data", tmp_path / "tools"
    for directory in (data, tools):
        directory.mkdir()
    spec = SandboxSpec(
        role=("idle",),
        network=NetworkMode.VETH,
        data_dir=data,
        tools_dir=tools,
        deadline_ns=DEADLINE_NS,
    )
    options = {**JAILED, "uid": 61_001, "gid": 61_002, "disk": "16MiB"}
    with opened("firecracker", options) as session:
        plan_id, result = started(session, spec)
        assert result.outcome is Outcome.OK, result
        (disk,) = data.iterdir()
        assert (disk.stat().st_uid, disk.stat().st_gid) == (61_001, 61_002)
        mounted = [point for point in mounts_under(state_root()) if point.endswith(disk.name)]
        assert len(mounted) == 1
        owner = ["ip", "netns", "exec", plan_id, "cat", "/sys/class/net/tap0/owner"]
        assert proc.run(owner).text == "61001\n"
        session.launcher.stop([plan_id], how="request")
        left_clean(session, plan_id)
        assert session.litter == {}
        assert list(data.iterdir()) == []
        assert not [point for point in mounts_under(state_root()) if point.endswith(disk.name)]
    assert bodies(monitor, "/drives/data")[0]["path_on_host"] == f"/{disk.name}"
    assert bodies(monitor, "/drives/tools")[0]["path_on_host"] == "/tools0.ext4"
    assert bodies(monitor, "/network-interfaces/eth0")[0]["host_dev_name"] == "tap0"


def test_a_copy_of_a_snapshot_that_is_locked_in(monitor: Monitor) -> None:
    """What one monitor wrote in its root, those of the copies find in theirs, and cannot change."""
    with opened("firecracker-snapshot", JAILED) as session:
        for _ in range(2):
            plan_id, result = started(session)
            assert result.outcome is Outcome.OK, result
            (memory,) = state_root().glob("*/*/snapshot0/memory")
            seen = memory.stat()
            assert (seen.st_uid, stat.S_IMODE(seen.st_mode), seen.st_nlink) == (0, 0o444, 2)
            session.launcher.stop([plan_id], how="request")
            left_clean(session, plan_id)
        assert session.litter == {}
    written = {"snapshot_path": "/state", "mem_file_path": "/memory", "snapshot_type": "Full"}
    assert bodies(monitor, "/snapshot/create") == [written]
    loaded = bodies(monitor, "/snapshot/load")
    assert [body["snapshot_path"] for body in loaded] == ["/state"] * 2
    backend = {"backend_type": "File", "backend_path": "/memory"}
    assert [body["mem_backend"] for body in loaded] == [backend] * 2
    assert len(monitor.read("jails.jsonl")) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"refuse": "/vsock"}, "refused PUT /vsock: status 400"),
        ({"dies": "Error creating KVM object"}, "Error creating KVM object"),
    ],
)
def test_failures_inside_have_their_reasons(
    monitor: Monitor, settings: dict[str, str], words: str
) -> None:
    """What the jailer or the monitor said last is in the result, and nothing stays."""
    monitor.set(**settings)
    with opened("firecracker", JAILED) as session:
        plan_id, result = started(session)
        assert result.outcome is Outcome.EXITED_EARLY, result
        assert words in f"{result.error} {result.stderr_tail}"
        left_clean(session, plan_id)


@pytest.mark.parametrize("name", BOTH)
def test_a_kill_in_the_middle_of_a_start_is_swept(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Owner and launcher are killed while the guest is waited for; a fresh process finds all."""
    monitor.set(hangs="yes")
    monkeypatch.setenv(jail.VARIABLE, "1")
    run_id = new_run_id()
    argv = [sys.executable, "-m", "tests.support.holder", name, run_id, "none"]
    path = f"{REPOSITORY / 'python'}:{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"
    with proc.spawn(argv, env={**os.environ, "PYTHONPATH": path}, cwd=REPOSITORY) as owner:
        for _ in range(2_000):
            if bodies(monitor, "/actions"):
                break
            assert owner.poll() is None
            Event().wait(0.01)
        family = leaks.descendants([owner.pid])
        locked = {pid for pid in family if leaks.process_name(pid) == "firecracker"}
        assert locked
        assert locked <= set(CgroupHost.detect().group(run_id).members())
        # Neither is to clean up after the other.
        os.kill(owner.pid, signal.SIGSTOP)
        (launcher,) = [pid for pid in family if "--control-fd" in leaks.command_line(pid)]
        os.kill(launcher, signal.SIGKILL)
        owner.kill()
    roots = [str(one["root"]) for one in monitor.read("jails.jsonl")]
    assert any(Path(root, "dev", "kvm").is_char_device() for root in roots)
    assert f"state {state_root() / run_id}" in would_remove()
    removed = state.sweep()
    assert f"state {state_root() / run_id}" in removed
    assert not any(leaks.is_alive(pid) for pid in locked)
    assert remains_of(run_id, state_root=state_root()) == []
    assert would_remove() == []


@pytest.mark.parametrize("name", BOTH)
def test_the_probe_of_a_jailer(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Asked for by the environment: works, needs KVM, is of another release, is not there."""
    monkeypatch.setenv(jail.VARIABLE, "1")
    driver = registry.get(name)
    assert driver.probe().status.is_usable
    assert monitor.read("jails.jsonl")
    monitor.set(dies="Error creating KVM object")
    result = driver.probe()
    assert result.status is ProbeStatus.BROKEN
    assert "Error creating KVM object" in result.detail
    assert "KVM" in (result.hint or "")
    monitor.set(jailer="1.12.1")
    result = driver.probe()
    assert result.status is ProbeStatus.MISSING
    assert "of release 1.12.1, and Firecracker of 1.13.0" in result.detail
    (monitor.home / "jailer").unlink()
    result = driver.probe()
    assert result.status is ProbeStatus.MISSING
    assert "jailer is not installed" in result.detail
    assert "the same release of Firecracker" in (result.hint or "")
    with pytest.raises(DriverUnavailable, match="jailer is not installed"):
        opened(name, JAILED)
    with opened(name, {"jailer": False}) as session:
        assert session.flags["jailer"] == "none"


def test_without_the_option_nothing_is_locked_in(monitor: Monitor) -> None:
    """Nor is anything mounted, though a jailer is there."""
    with opened("firecracker") as session:
        plan_id, result = started(session, IDLE)
        assert result.outcome is Outcome.OK, result
        assert mounts_under(state_root()) == []
        left = session.launcher.stop([plan_id], how="request")
        assert left[0].exit_code == 0
        left_clean(session, plan_id)
    assert monitor.read("jails.jsonl") == []
