"""The doctor's judgements of runtimes, storage, isolation, tools and leftovers."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from seatrial.cli import doctor as command
from seatrial.doctor import (
    attempt,
    daemons,
    isolation,
    launcher,
    leftovers,
    runtimes,
    storage,
    tools,
)
from seatrial.doctor.check import Level
from seatrial.doctor.thin_pool import ThinPool
from seatrial.doctor.tree import Tree
from seatrial.drivers import registry
from seatrial.drivers.base import Capabilities, ProbeResult, ProbeStatus
from seatrial.drivers.state import Owner
from seatrial.errors import ConfigError, ProcessFailed, UnitError
from seatrial.model.codec import encode
from seatrial.model.experiment import NetworkMode
from seatrial.probes.cgroup import CgroupHost, Hierarchy

GIB = 1 << 30


def probed(status: ProbeStatus, **changes: object) -> ProbeResult:
    """What a probe of a driver gave."""
    result = ProbeResult(
        name="process", status=status, version="1.2", detail="said so", hint="do this"
    )
    return replace(result, **changes)  # type: ignore[arg-type]  # fields of the caller's choice


# --- runtimes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "level", "fix"),
    [
        (ProbeStatus.WORKS, Level.OK, ""),
        (ProbeStatus.DEGRADED, Level.WARN, "do this"),
        (ProbeStatus.MISSING, Level.MISSING, "do this"),
        (ProbeStatus.BROKEN, Level.BROKEN, "do this"),
    ],
)
def test_a_probe_becomes_a_check(status: ProbeStatus, level: Level, fix: str) -> None:
    """With its version, how long it took, and the fix where there is something to fix."""
    check = runtimes.judge_runtime(probed(status, elapsed_ns=5_000_000), is_needed=True)
    assert (check.level, check.fix) == (level, fix)
    bare = runtimes.judge_runtime(probed(status, hint=None), is_needed=False)
    assert bool(bare.fix) is (level is not Level.OK), "each problem has its fix"
    assert check.evidence.startswith("1.2; said so (5.00 ms")
    assert check.is_blocking is (level in {Level.MISSING, Level.BROKEN})
    assert not replace(check, is_needed=False).is_blocking
    json.dumps(encode(check))


def test_benches_are_graded_by_what_a_driver_can_do() -> None:
    """Without a group of its own memory is only partly booked; without a veth there is no load."""
    whole = Capabilities(
        network_modes=(NetworkMode.VETH,), has_own_cgroup=True, can_bind_tools=True
    )
    full = runtimes.ability(probed(ProbeStatus.WORKS, capabilities=whole))
    assert (full.start, full.density, full.inside, full.load) == ("yes",) * 4
    poor = runtimes.ability(probed(ProbeStatus.DEGRADED))
    assert (poor.start, poor.density, poor.inside, poor.load) == (
        "partly",
        "partly",
        "partly",
        "no",
    )
    broken = runtimes.ability(probed(ProbeStatus.BROKEN, capabilities=whole))
    assert {broken.start, broken.density, broken.inside, broken.load} == {"no"}


PLUGINS = """\
TYPE                            ID                       PLATFORMS      STATUS
io.containerd.snapshotter.v1    devmapper                linux/amd64    error
io.containerd.snapshotter.v1    native                   linux/amd64    ok
io.containerd.snapshotter.v1    overlayfs                linux/amd64    {overlay}
io.containerd.grpc.v1           cri                      linux/amd64    {cri}
"""


@pytest.mark.parametrize(
    ("overlay", "cri", "levels"),
    [
        ("ok", "ok", [Level.OK, Level.OK]),
        ("error", "ok", [Level.WARN, Level.OK]),
        ("ok", "error", [Level.OK, Level.WARN]),
    ],
)
def test_plugins_of_a_running_containerd_are_judged(
    overlay: str, cri: str, levels: list[Level]
) -> None:
    """Native alone copies every image."""
    plugins = daemons.parse_plugins(PLUGINS.format(overlay=overlay, cri=cri))
    assert [one.name for one in plugins] == ["devmapper", "native", "overlayfs", "cri"]
    checks = list(daemons.judge_plugins("running containerd", plugins))
    assert [check.level for check in checks] == levels
    assert "devmapper error" in checks[0].evidence


@pytest.mark.parametrize(
    ("text", "disabled"),
    [
        ('disabled_plugins = ["cri"]\n', {"cri"}),
        ("version = 2\n", set()),
        ("not toml [", set()),
        ('disabled_plugins = "cri"\n', set()),
    ],
)
def test_plugins_turned_off_are_read_from_the_configuration(text: str, disabled: set[str]) -> None:
    """Debian and Docker ship one that turns CRI off."""
    assert daemons.disabled_plugins(text) == disabled


def test_what_stands_around_runtimes_is_found_or_comes_with_its_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing installed; then an engine, a shim of the set-up's, and a server that is dead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "MORE_PATHS", str(tmp_path))
    monkeypatch.setattr(registry, "names", lambda: ("process", "docker"))
    tree = Tree(tmp_path)
    before = {one.name: one for one in daemons.check_daemons(tree, tools=tmp_path / "own")}
    assert {one.level for one in before.values()} == {Level.MISSING}
    assert all(one.fix for one in before.values())
    assert "docker" not in before, "its driver starts one"
    for name in ("podman", "ctr", "own/containerd-shim-kata-v2", "run/containerd/containerd.sock"):
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\necho no server >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    after = {one.name: one for one in daemons.check_daemons(tree, tools=tmp_path / "own")}
    assert after["podman"].evidence == str(tmp_path / "podman")
    assert after["containerd-shim-kata-v2"].level is Level.OK
    dead = after["running containerd"]
    assert dead.level is Level.BROKEN
    assert "no server" in dead.evidence


# --- storage -------------------------------------------------------------------------------------


def test_a_thin_pool_is_planned_and_not_made(tmp_path: Path) -> None:
    """100 GiB: blocks of 64 KiB, 48 bytes of metadata each, low water at a tenth."""
    pool = ThinPool(data_bytes=100 * GIB, directory=tmp_path / "pool")
    assert pool.blocks_count == 1_638_400
    assert pool.metadata_bytes == 75 << 20
    assert pool.low_water_blocks_count == 163_840
    text = pool.text(free_bytes=GIB)
    assert "0 209715200 thin-pool $META $DATA 128 163840 1 skip_block_zeroing" in text
    assert f"truncate -s {100 * GIB} {tmp_path}/pool/data" in text
    assert "WARNING: only 1.00 GiB are free" in text
    assert "WARNING" not in pool.text(free_bytes=200 * GIB)
    assert "base_image_size = '10240MB'" in text
    assert not (tmp_path / "pool").exists()
    # Whatever a careless reader pastes makes the pool, and does not take it away.
    live = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert live == list(pool.commands())


@pytest.mark.parametrize(
    ("size", "metadata"), [(GIB, 2 << 20), (1 << 40, 768 << 20), (64 << 40, 16 << 30)]
)
def test_metadata_has_a_floor_and_a_ceiling(size: int, metadata: int) -> None:
    """2 MiB and 16 GiB, by the kernel's documentation."""
    assert ThinPool(data_bytes=size).metadata_bytes == metadata


def test_a_pool_that_is_too_small_is_refused() -> None:
    """The message says what is expected."""
    with pytest.raises(ConfigError, match=r"expected 1\.00 GiB or more") as caught:
        ThinPool(data_bytes=GIB - 1)
    assert caught.value.code == "thin-pool-size"
    with pytest.raises(UnitError):
        command._thin_pool("100")


@pytest.mark.parametrize(
    ("filesystem", "overlay", "level", "word"),
    [
        ("ext4", "", Level.OK, "overlayfs fits"),
        ("ext4", "No such device", Level.WARN, "native"),
        ("overlay", "", Level.WARN, "upper layer"),
    ],
)
def test_the_snapshotter_follows_from_what_can_be_mounted(
    filesystem: str, overlay: str, level: Level, word: str
) -> None:
    """Inside of a container images lie on an overlay already."""
    check = storage.judge_snapshotter(filesystem, overlay=overlay, containers=Path("/var/lib"))
    assert check.level is level
    assert word in check.evidence


def test_a_thin_pool_needs_the_mapper_and_its_tools() -> None:
    """Each lack has its own fix."""
    none = frozenset[str]()
    no_mapper = storage.judge_thin_pool(mapper="No such device", targets=none, has_tools=True)
    assert (no_mapper.level, "CONFIG_DM_THIN_PROVISIONING" in no_mapper.fix) == (Level.WARN, True)
    no_tools = storage.judge_thin_pool(mapper="", targets=none, has_tools=False)
    assert (no_tools.level, "apt-get install dmsetup" in no_tools.fix) == (Level.WARN, True)
    both = storage.judge_thin_pool(mapper="", targets=frozenset({"dm_thin_pool"}), has_tools=True)
    assert (both.level, "loaded" in both.evidence) == (Level.OK, True)


def test_direct_writes_leave_no_file(tmp_path: Path) -> None:
    """Bytes are written where O_DIRECT is taken; the directory stays empty either way."""
    with contextlib.suppress(OSError):  # a file system that takes none, such as an old tmpfs
        written, reached = storage.write_direct(tmp_path)
        assert written == storage.DIRECT_BYTES
        assert reached is None or reached >= 0
    assert list(tmp_path.iterdir()) == []
    check = storage._direct(tmp_path)
    assert str(tmp_path) in check.evidence
    assert list(tmp_path.iterdir()) == []


# --- isolation, tools, launcher ------------------------------------------------------------------


def test_lacking_namespaces_are_broken_but_time_is_not() -> None:
    """None of ours asks for a clock of its own."""
    assert isolation.judge_namespace("net", "").level is Level.OK
    lacking = isolation.judge_namespace("net", "Operation not permitted")
    assert (lacking.level, "load benches" in lacking.consequence) == (Level.BROKEN, True)
    assert isolation.judge_namespace("time", "Invalid argument").level is Level.WARN


def test_an_overlay_without_a_tmpfs_is_not_tried() -> None:
    """What could not be tried is not called broken."""
    levels = [check.level for check in isolation.judge_mounts({"tmpfs": "no"})]
    assert levels == [Level.BROKEN, Level.UNTRIED]
    found = {"tmpfs": "", "overlay": "No such device"}
    checks = list(isolation.judge_mounts(found))
    assert [check.level for check in checks] == [Level.OK, Level.BROKEN]
    assert "native" in checks[1].consequence


def test_devices_come_with_the_module_that_brings_them() -> None:
    """The fix can be typed."""
    check = isolation.judge_device("vhost-net", "No such file or directory")
    assert check.fix.startswith("modprobe vhost_net")
    assert isolation.judge_device("vsock", "x").fix.startswith("boot a kernel with CONFIG_VSOCKETS")


def test_trials_run_in_a_process_of_their_own() -> None:
    """They end within their deadline, and say what the kernel said."""
    devices = attempt.attempt("devices")
    assert {"vsock", "vhost-net", "loop", "device-mapper"} <= set(devices)
    with pytest.raises(ProcessFailed):
        attempt.attempt("no-such-trial")


def test_a_trial_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a guest on a broken KVM does."""
    program = tmp_path / "hang.py"
    program.write_text("import signal\nsignal.pause()\n")
    monkeypatch.setattr(attempt, "PROGRAM", program)
    with pytest.raises(ProcessFailed) as caught:
        attempt.attempt("kvm", timeout_s=0.3)
    assert caught.value.code == "process-timeout"
    program.write_text("print('no json')\n")
    with pytest.raises(ProcessFailed, match="expected JSON"):
        attempt.attempt("kvm")


def test_tools_say_their_version_or_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program that fails is broken, one that is not there is missing."""
    good, bad = tmp_path / "wget", tmp_path / "curl"
    good.write_text("#!/bin/sh\necho GNU Wget 9\n")
    bad.write_text("#!/bin/sh\nexit 7\n")
    for program in (good, bad):
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(tools, "MORE_PATHS", str(tmp_path))
    assert tools._program("wget").evidence == f"GNU Wget 9 ({good})"
    assert tools._program("curl").level is Level.BROKEN
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = tools._program("iperf3")
    assert (missing.level, missing.fix) == (Level.MISSING, "apt-get install iperf3")


def test_an_engine_that_moves_nothing_is_no_engine(tmp_path: Path) -> None:
    """A fio that says all is well after zero bytes is not believed."""
    fio = tmp_path / "fio"
    nothing = {"io_bytes": 0, "bw_bytes": 0}
    job = {"error": 0, "read": nothing, "write": nothing}
    fio.write_text(f"#!/bin/sh\necho '{json.dumps({'jobs': [job]})}'\n")
    fio.chmod(0o755)
    check = tools._engine(str(fio), "io_uring")
    assert check.level is Level.WARN
    assert "0 bytes" in check.evidence
    levels = {check.level for check in tools.check_tools(starts=False) if "engine" in check.name}
    assert levels == {Level.UNTRIED}


def test_a_storm_with_one_failed_start_is_broken() -> None:
    """Otherwise its middle and its longest are told."""
    good = launcher.judge_storm(10, [1_000_000, 2_000_000, 9_000_000], [])
    assert (good.level, good.values) == (Level.OK, {"p50_ns": 2_000_000, "longest_ns": 9_000_000})
    bad = launcher.judge_storm(10, [1_000_000], ["no process ids left"])
    assert (bad.level, "1 of 2 starts failed" in bad.evidence) == (Level.BROKEN, True)


# --- leftovers -----------------------------------------------------------------------------------


def test_runs_of_dead_owners_are_told_and_live_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fix is the command that removes them; also where only groups are left."""
    place = tmp_path / "groups"
    tree = Hierarchy(version=1, controllers=frozenset({"cpu"}), mount=place, base=place)
    monkeypatch.setattr(CgroupHost, "detect", lambda: CgroupHost((tree,)))
    CgroupHost((tree,)).create("probe-20260102T030405Z-0a1b")
    for name, owner in {
        "dead": Owner(run_id="dead", pid=1, start_ticks=-1, boot_id="another boot"),
        "alive": Owner.current("alive"),
    }.items():
        (tmp_path / name).mkdir()
        owner.write(tmp_path / name)
    checks = list(leftovers.check_leftovers({}, root=tmp_path))
    assert (checks[0].level, checks[0].fix) == (Level.WARN, "seatrial clean")
    assert "2 left something: dead, probe-20260102T030405Z-0a1b" in checks[0].evidence
    assert checks[1].level is Level.OK


@pytest.mark.parametrize(
    ("commands", "level", "word"),
    [
        ({1: "init"}, Level.OK, "none"),
        ({1: "init", 5: "containerd-shim"}, Level.WARN, "no server"),
        ({1: "init", 5: "containerd-shim", 6: "containerd"}, Level.WARN, "1 shims"),
        ({1: "init", 7: "conmon"}, Level.WARN, "1 conmon"),
    ],
)
def test_containers_beside_the_measured_ones_are_told(
    commands: dict[int, str], level: Level, word: str
) -> None:
    """A shim whose server is gone is told apart."""
    check = leftovers.judge_orphans(commands)
    assert check.level is level
    assert word in check.evidence


def test_the_audit_finds_what_an_examination_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Files, also on the disk that was asked about, and a state directory of ours."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    runs = tmp_path / "runs"
    runs.mkdir()
    before = leftovers.take_stock(runs)
    assert leftovers.audit(before, runs).level is Level.OK
    (tmp_path / "seatrial-doctor-x").mkdir()
    (runs / "seatrial-doctor-y").mkdir()
    state = tmp_path / "run/seatrial/probe-1"
    state.mkdir(parents=True)
    Owner.current("probe-1").write(state)
    check = leftovers.audit(before, runs)
    assert check.level is Level.BROKEN
    assert "seatrial-doctor-x" in check.evidence
    assert "seatrial-doctor-y" in check.evidence
    assert "state" in check.evidence
