"""What this user and this kernel allow: capabilities, limits of a process, sizes of tables."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.LIMITS)
#: Numbers of linux/capability.h, and what is lost without each.
CAPABILITIES: Final[Mapping[str, tuple[int, str]]] = {
    "CAP_SYS_ADMIN": (21, "no mounts and namespaces: only rootless runtimes can run"),
    "CAP_NET_ADMIN": (12, "no veth pairs: the load benches cannot run"),
    "CAP_SYS_RESOURCE": (24, "no hard limit can be raised: podman alone tries to"),
    "CAP_SYS_PTRACE": (19, "memory of sandboxes of other users cannot be read"),
    "CAP_MKNOD": (27, "no device nodes in root file systems"),
    "CAP_DAC_OVERRIDE": (1, "groups and files of other users cannot be written"),
    "CAP_SETUID": (7, "no change of user for a sandbox"),
    "CAP_KILL": (5, "sandboxes of other users cannot be ended"),
}
UNLIMITED: Final = "unlimited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A number that should be at least so large, and why."""

    name: str
    file: str
    at_least: int
    so: str
    is_missing_fine: bool = True


FLOORS: Final = (
    Floor(
        name="process ids",
        file="proc/sys/kernel/pid_max",
        at_least=32768,
        so="storms run out of process ids",
    ),
    Floor(
        name="threads",
        file="proc/sys/kernel/threads-max",
        at_least=32768,
        so="many sandboxes at once cannot start their threads",
    ),
    Floor(
        name="open files of the machine",
        file="proc/sys/fs/file-max",
        at_least=100_000,
        so="many sandboxes at once run out of open files",
    ),
    Floor(
        name="inotify instances of a user",
        file="proc/sys/fs/inotify/max_user_instances",
        at_least=128,
        so="containerd and its shims fail past some dozens of containers",
    ),
    Floor(
        name="keys of root",
        file="proc/sys/kernel/keys/root_maxkeys",
        at_least=10_000,
        so="runc makes a key ring for each container, and fails when there are too many",
    ),
    Floor(
        name="mappings of a process",
        file="proc/sys/vm/max_map_count",
        at_least=65530,
        so="gVisor and large guests run out of mappings",
    ),
    Floor(
        name="pseudo-terminals",
        file="proc/sys/kernel/pty/max",
        at_least=1024,
        so="that many sandboxes with a terminal can live at once",
    ),
)


def check_limits(tree: Tree) -> Iterator[Check]:
    """Look at what is allowed."""
    yield _user()
    yield _capabilities(tree)
    yield from _limits()
    yield from _floors(tree)
    yield _user_namespaces(tree)
    yield _tracing(tree)


def _user() -> Check:
    if os.geteuid() == 0:
        return SAY.ok("user", "root")
    return SAY.warn(
        "user",
        f"user id {os.geteuid()}",
        so="no veth, no cgroup books unless delegated; only rootless runtimes can run",
        fix="run as root for the full set",
    )


def parse_capabilities(status: str) -> int | None:
    """Read the effective capabilities from /proc/PID/status; pure; None: they are not there."""
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == "CapEff":
            return int(value, 16)
    return None


def _capabilities(tree: Tree) -> Check:
    held = parse_capabilities(tree.text("proc/self/status") or "")
    if held is None:
        return SAY.untried("capabilities", "/proc/self/status does not say")
    lacking = {name: loss for name, (bit, loss) in CAPABILITIES.items() if not held & 1 << bit}
    if not lacking:
        return SAY.ok("capabilities", "all that matter", values={"effective": f"{held:016x}"})
    return SAY.warn(
        "capabilities",
        f"without {', '.join(lacking)}",
        so="; ".join(lacking.values()),
        fix="run as root with all capabilities (docker run --privileged, inside of a container)",
        values={"effective": f"{held:016x}", "lacking": list(lacking)},
    )


def _limits() -> Iterator[Check]:
    for name, number, at_least, flag, so in (
        ("open files", resource.RLIMIT_NOFILE, 4096, "-Hn", "storms of hundreds of starts fail"),
        ("processes", resource.RLIMIT_NPROC, 4096, "-Hu", "storms of hundreds of starts fail"),
        (
            "locked memory",
            resource.RLIMIT_MEMLOCK,
            1 << 16,
            "-Hl",
            "io_uring and memory of guests that must stay resident fail",
        ),
    ):
        yield judge_limit(name, resource.getrlimit(number), at_least=at_least, flag=flag, so=so)


def judge_limit(name: str, limits: tuple[int, int], *, at_least: int, flag: str, so: str) -> Check:
    """Judge the hard limit of a resource; pure."""
    soft, hard = (UNLIMITED if one == resource.RLIM_INFINITY else str(one) for one in limits)
    evidence = f"soft {soft}, hard {hard}"
    values = {"soft": limits[0], "hard": limits[1]}
    if hard == UNLIMITED or limits[1] >= at_least:
        return SAY.ok(f"limit of {name}", evidence, values=values)
    return SAY.warn(
        f"limit of {name}",
        evidence,
        so=so,
        fix=f"raise the hard limit to {at_least} or more (ulimit {flag}, as root)",
        values=values,
    )


def _floors(tree: Tree) -> Iterator[Check]:
    for floor in FLOORS:
        value = tree.number(floor.file)
        where = "/" + floor.file
        if value is None:
            yield SAY.untried(floor.name, f"{where} cannot be read")
        elif value >= floor.at_least:
            yield SAY.ok(floor.name, f"{value}", values={"value": value})
        else:
            key = floor.file.removeprefix("proc/sys/").replace("/", ".")
            yield SAY.warn(
                floor.name,
                f"{value}, in {where}",
                so=floor.so,
                fix=f"sysctl -w {key}={floor.at_least}",
                values={"value": value},
            )


def _user_namespaces(tree: Tree) -> Check:
    name = "user namespaces allowed"
    count = tree.number("proc/sys/user/max_user_namespaces")
    closed = {
        "kernel.unprivileged_userns_clone=1": tree.text("proc/sys/kernel/unprivileged_userns_clone")
        == "0",
        "kernel.apparmor_restrict_unprivileged_userns=0": tree.text(
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
        )
        == "1",
        "user.max_user_namespaces=10000": count == 0,
    }
    settings = [setting for setting, is_closed in closed.items() if is_closed]
    if not settings:
        return SAY.ok(name, "no limit found" if count is None else f"{count}")
    return SAY.warn(
        name,
        f"{count}, but not for everybody",
        so="bwrap and rootless runc need root",
        fix=f"sysctl -w {' '.join(settings)}",
    )


def _tracing(tree: Tree) -> Check:
    scope = tree.number("proc/sys/kernel/yama/ptrace_scope")
    if scope is None:
        return SAY.ok("tracing", "not restricted (no yama)")
    if scope <= 1:
        return SAY.ok("tracing", f"kernel.yama.ptrace_scope={scope}")
    return SAY.warn(
        "tracing",
        f"kernel.yama.ptrace_scope={scope}",
        so="gVisor's ptrace platform cannot run",
        fix="sysctl -w kernel.yama.ptrace_scope=1",
    )
