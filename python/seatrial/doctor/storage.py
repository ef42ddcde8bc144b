"""Disks: room, file systems, whether O_DIRECT is honoured, and which snapshotter fits."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.doctor.attempt import attempt
from seatrial.doctor.check import About, Check, Group
from seatrial.errors import ProcessFailed
from seatrial.probes.block_device import device_of
from seatrial.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.STORAGE)
FREE_BYTES_MIN: Final = 1 << 30
FREE_BYTES_NEEDED: Final = 64 << 20
DIRECT_BYTES: Final = 1 << 20
BLOCK_BYTES: Final = 4096
#: Other writers can only add to the counters of a device.
REACHED_RATIO_MIN: Final = 0.9
#: File systems on which overlayfs can keep its upper layer.
UPPER_LAYERS: Final = frozenset({"ext4", "ext3", "xfs", "btrfs", "tmpfs", "f2fs"})


def check_storage(tree: Tree, *, run_dir: Path, state_dir: Path) -> Iterator[Check]:
    """Look at the places that a run uses, and at what images could be kept in."""
    places = {"runs": run_dir, "state": state_dir, "temporary files": Path(tempfile.gettempdir())}
    for name, path in places.items():
        yield _room(name, existing(path))
    yield _direct(existing(run_dir))
    yield _dropping(tree)
    yield from check_snapshotters(tree, containers=existing(Path("/var/lib/containerd")))


def existing(path: Path) -> Path:
    """Give the path, or the closest directory above it that there is."""
    resolved = path.resolve()
    return next(one for one in (resolved, *resolved.parents) if one.exists())


def _room(name: str, path: Path) -> Check:
    free = shutil.disk_usage(path).free
    evidence = f"{format_bytes(free)} free in {path} ({device_of(path).filesystem})"
    values = {"free_bytes": free}
    if free >= FREE_BYTES_MIN:
        return SAY.ok(f"room for {name}", evidence, values=values)
    say = SAY.warn if free >= FREE_BYTES_NEEDED else SAY.broken
    return say(
        f"room for {name}",
        evidence,
        so="a long run may fill it; finished trials are kept, and the run stops",
        fix="free some space, or choose another place (--out, XDG_RUNTIME_DIR, TMPDIR)",
        values=values,
    )


def write_direct(directory: Path) -> tuple[int, int | None]:
    """Write a mebibyte past the page cache; give the bytes, and those that the device counted.

    The file has no name from the beginning, so nothing can be left behind.

    Raises:
        OSError: the file system takes no O_DIRECT, or the directory is not writable.
    """
    device = device_of(directory)
    flags = os.O_RDWR | os.O_TMPFILE | os.O_DIRECT | os.O_CLOEXEC
    file = os.open(directory, flags, 0o600)
    # Direct transfers want an aligned buffer, and mappings are aligned to pages.
    with mmap.mmap(-1, DIRECT_BYTES) as buffer:
        try:
            buffer[:] = os.urandom(DIRECT_BYTES)
            before = device.read()
            os.pwrite(file, buffer, 0)
            os.fdatasync(file)
            after = device.read()
        finally:
            os.close(file)
    if before is None or after is None:
        return DIRECT_BYTES, None
    return DIRECT_BYTES, after.written_bytes - before.written_bytes


def _direct(directory: Path) -> Check:
    name = "direct I/O"
    fix = "choose a directory on a disk with --out"
    device = device_of(directory)
    where = f"{directory} ({device.filesystem} on {device.name})"
    try:
        written, reached = write_direct(directory)
    except OSError as error:
        return SAY.warn(
            name,
            f"{where}: {error.strerror or error}",
            so="disk tests that go past the page cache cannot run there",
            fix=fix,
        )
    if reached is None:
        return SAY.warn(
            name,
            f"{where}: O_DIRECT is taken; the device keeps no books",
            so="what a sandbox says it wrote cannot be held against the device",
            fix=fix,
        )
    values = {"written_bytes": written, "device_bytes": reached}
    evidence = f"{where}: {format_bytes(written)} written, {format_bytes(reached)} on the device"
    if reached >= REACHED_RATIO_MIN * written:
        return SAY.ok(name, evidence, values=values)
    return SAY.warn(
        name,
        evidence,
        so="O_DIRECT is taken and ignored: disk numbers would be those of memory",
        fix=fix,
        values=values,
    )


def _dropping(tree: Tree) -> Check:
    # Only opened: dropping the caches here would slow down whatever else is being measured.
    try:
        os.close(os.open(tree.path("proc/sys/vm/drop_caches"), os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        return SAY.warn(
            "dropping caches",
            f"/proc/sys/vm/drop_caches: {error.strerror}",
            so="starts with cold caches cannot be measured",
            fix="run as root, outside of a container",
        )
    return SAY.ok("dropping caches", "allowed (not done)")


def check_snapshotters(tree: Tree, *, containers: Path) -> Iterator[Check]:
    """Say which of containerd's ways to keep images fits this machine."""
    overlay, mapper = _reasons()
    filesystem = device_of(containers).filesystem
    yield judge_snapshotter(filesystem, overlay=overlay, containers=containers)
    yield judge_thin_pool(
        mapper=mapper,
        targets=frozenset(_targets(tree)),
        has_tools=shutil.which("dmsetup") is not None,
    )


def _reasons() -> tuple[str, str]:
    overlay = mapper = "could not be tried"
    with contextlib.suppress(ProcessFailed):
        found: Mapping[str, str] = attempt("overlay")
        overlay = found.get("tmpfs") or found.get("overlay", overlay)
    with contextlib.suppress(ProcessFailed):
        mapper = attempt("devices").get("device-mapper", mapper)
    return overlay, mapper


def _targets(tree: Tree) -> Iterator[str]:
    for name in tree.names("sys/module"):
        if name.startswith("dm_"):
            yield name


def judge_snapshotter(filesystem: str, *, overlay: str, containers: Path) -> Check:
    """Choose between overlayfs and native; pure."""
    if overlay:
        return SAY.warn(
            "snapshotter",
            f"native (overlay mounts: {overlay})",
            so="every container gets a full copy of its image: slow starts, much disk",
            fix="see 'overlay mount'",
        )
    if filesystem not in UPPER_LAYERS:
        return SAY.warn(
            "snapshotter",
            f"{containers} is on {filesystem}, which cannot hold an overlay's upper layer",
            so="containerd falls back to native: a full copy of the image for every container",
            fix="keep containerd's root on ext4, xfs or btrfs",
        )
    return SAY.ok("snapshotter", f"overlayfs fits: {containers} is on {filesystem}")


def judge_thin_pool(*, mapper: str, targets: frozenset[str], has_tools: bool) -> Check:
    """Say whether a thin pool for the snapshotter devmapper can be had; pure."""
    so = "no snapshotter devmapper, which Kata with Firecracker needs; overlayfs serves the rest"
    if mapper:
        return SAY.warn(
            "thin pool",
            f"device mapper: {mapper}",
            so=so,
            fix="modprobe dm_thin_pool, or boot a kernel with CONFIG_DM_THIN_PROVISIONING",
        )
    if not has_tools:
        return SAY.warn(
            "thin pool",
            "the device mapper is there, dmsetup is not",
            so=so,
            fix="apt-get install dmsetup thin-provisioning-tools",
        )
    loaded = "loaded" if "dm_thin_pool" in targets else "built in, or loaded on use"
    return SAY.ok(
        "thin pool",
        f"can be made (dm_thin_pool: {loaded}); 'seatrial doctor --thin-pool SIZE' prints how",
    )
