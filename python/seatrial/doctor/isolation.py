"""What isolates: namespaces, overlay mounts and devices, each by really trying it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.doctor.attempt import attempt
from seatrial.doctor.check import About, Check, Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SAY: Final = About(Group.ISOLATION)
#: What is lost without a namespace.
LOSSES: Final[Mapping[str, str]] = {
    "mount": "no sandbox with a root of its own",
    "uts": "no sandbox of bwrap, runc, crun or runsc",
    "ipc": "no sandbox of bwrap, runc, crun or runsc",
    "pid": "no sandbox of bwrap, runc, crun or runsc",
    "net": "no sandbox with a network of its own: the load benches cannot run",
    "cgroup": "no container on cgroup v2",
    "user": "no sandbox without root",
    "time": "no sandbox with a clock of its own (none of ours asks for one)",
}
DEVICES: Final[Mapping[str, tuple[str, str]]] = {
    "vsock": ("no channel to microVMs but virtio serial", "CONFIG_VSOCKETS and a transport"),
    "vhost-vsock": ("Kata and Firecracker have no channel to their guests", "vhost_vsock"),
    "vhost-net": ("networks of microVMs pass through user space, and are slower", "vhost_net"),
    "fuse": ("no fuse-overlayfs for rootless podman", "fuse"),
    "loop": ("no images as files", "loop"),
}


def check_isolation() -> Iterator[Check]:
    """Try namespaces, an overlay mount and devices."""
    for name, reason in attempt("namespaces").items():
        yield judge_namespace(name, reason)
    yield from judge_mounts(attempt("overlay"))
    for name, reason in attempt("devices").items():
        if name in DEVICES:
            yield judge_device(name, reason)


def judge_namespace(name: str, reason: str) -> Check:
    """Judge what came of ``unshare``; pure."""
    title = f"{name} namespace"
    if not reason:
        return SAY.ok(title, "one was made")
    say = SAY.warn if name == "time" else SAY.broken
    return say(
        title,
        f"unshare: {reason}",
        so=LOSSES[name],
        fix="run as root outside of a container, or allow user namespaces "
        "(see 'user namespaces allowed')",
    )


def judge_mounts(found: Mapping[str, str]) -> Iterator[Check]:
    """Judge what came of mounting in a namespace of its own; pure."""
    for name, so in (
        ("tmpfs", "no sandbox with a root of its own"),
        ("overlay", "images are copied whole for each container: snapshotter native"),
    ):
        if name not in found:
            yield SAY.untried(f"{name} mount", "there was no tmpfs to lay it over")
        elif not found[name]:
            yield SAY.ok(f"{name} mount", "one was mounted, written through and left")
        else:
            yield SAY.broken(
                f"{name} mount",
                f"mount: {found[name]}",
                so=so,
                fix=f"modprobe {name}, or boot a kernel with it; inside of a container, leave it",
            )


def judge_device(name: str, reason: str) -> Check:
    """Judge what came of opening a device; pure."""
    if not reason:
        return SAY.ok(name, "opened")
    so, module = DEVICES[name]
    fix = f"boot a kernel with {module}" if module.startswith("CONFIG") else f"modprobe {module}"
    return SAY.warn(name, reason, so=so, fix=f"{fix}; inside of a container, pass the device in")
