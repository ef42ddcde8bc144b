"""Control groups: which kind, who may write, what is attached where, and what never went away."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group
from seatrial.drivers.base import new_run_id
from seatrial.probes.cgroup import CgroupHost, CgroupMode
from seatrial.probes.cgroup_hold import hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.CGROUPS)
#: So many dying groups take noticeable memory, and slow the kernel's walks over all groups down.
DYING_COUNT_MAX: Final = 1000
V2: Final = 2


def check_cgroups(tree: Tree) -> Iterator[Check]:
    """Look at the hierarchies and try to make a group."""
    host = CgroupHost.detect(proc=tree.path("proc"))
    yield _mode(host)
    yield from _attached(host)
    yield _writable(host)
    yield from _hierarchical(host)
    yield _dying(tree, host)


def _mode(host: CgroupHost) -> Check:
    words = {
        CgroupMode.V2: "v2",
        CgroupMode.V1: "v1",
        CgroupMode.HYBRID: "hybrid: v1 keeps the books, a v2 mount stands beside it",
    }
    if host.mode is CgroupMode.NONE:
        return SAY.missing(
            "mode",
            "no cgroup file system is mounted",
            so="no CPU and memory books; OCI runtimes will not start",
            fix="mount -t cgroup2 none /sys/fs/cgroup",
        )
    evidence = words[host.mode]
    if host.mode is CgroupMode.V2:
        return SAY.ok("mode", evidence)
    return SAY.warn(
        "mode",
        evidence,
        so="no pressure and no reclaim counters of a sandbox; restoring snapshots of microVMs is "
        "slower (firecracker#2129)",
        fix="boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all, if v2 is what you "
        "will deploy on",
    )


def _attached(host: CgroupHost) -> Iterator[Check]:
    """Say what is attached to the v2 mount of a hybrid machine."""
    if host.v2 is None:
        return
    attached = _words(host.v2.mount / "cgroup.controllers")
    evidence = f"{host.v2.mount}: {', '.join(attached) or 'none'}"
    if host.mode is CgroupMode.V2:
        yield SAY.ok("controllers of v2", evidence)
        return
    if not attached:
        yield SAY.ok("controllers of v2", evidence)
        return
    yield SAY.warn(
        "controllers of v2",
        evidence,
        so="crun before 1.9 refuses a hybrid hierarchy whose v2 part has controllers",
        fix="none needed as root: Seatrial hides that mount from crun; else use a newer crun",
    )


def _writable(host: CgroupHost) -> Check:
    problems = host.problems()
    name = "groups of our own"
    fix = "run as root, or have a subtree delegated to this user (systemd: Delegate=yes)"
    so = "CPU and memory of a sandbox cannot be charged to it, and not limited"
    if problems:
        return SAY.warn(name, "; ".join(problems), so=so, fix=fix)
    run_id = new_run_id("doctor-")
    held = hold(host.group(run_id))
    try:
        stayed = host.create(run_id).remove()
    except OSError as error:
        return SAY.broken(name, f"making one failed: {error}", so=so, fix=fix)
    finally:
        if held is not None:
            held.close()
    for place in host.group("").directories():
        _remove_if_empty(place)
    if stayed:
        return SAY.broken(
            name,
            f"made, but cannot be removed: {', '.join(map(str, stayed))}",
            so="sandboxes leave groups behind",
            fix="see whether another program moves processes into them",
        )
    where = ", ".join(str(one.base) for one in host.book_hierarchies)
    return SAY.ok(name, f"one was made and removed below {where}")


def _remove_if_empty(place: Path) -> None:
    try:
        place.rmdir()
    except OSError:
        return  # another run of ours is at work in it


def _hierarchical(host: CgroupHost) -> Iterator[Check]:
    for one in host.joined:
        value = _words(one.mount / "memory.use_hierarchy")
        if value and value != ("1",):
            yield SAY.warn(
                "memory of groups below",
                f"memory.use_hierarchy is {value[0]} in {one.mount}",
                so="memory of the groups that a runtime makes is not in that of its sandbox",
                fix=f"echo 1 > {one.mount}/memory.use_hierarchy, before any group is made",
            )


def parse_group_count(text: str, controller: str) -> int | None:
    """Read how many groups of a controller the kernel keeps, from /proc/cgroups; pure."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > V2 and words[0] == controller:
            return int(words[2])
    return None


def _dying(tree: Tree, host: CgroupHost) -> Check:
    name = "groups that never went away"
    if host.mode is CgroupMode.V2 and host.v2 is not None:
        stat = dict(zip(words := _words(host.v2.mount / "cgroup.stat"), words[1:], strict=False))
        dying = int(stat.get("nr_dying_descendants", "0"))
        evidence = f"{dying} removed groups still hold memory"
    else:
        memory = next((one for one in host.v1 if "memory" in one.controllers), None)
        kept = parse_group_count(tree.text("proc/cgroups") or "", "memory")
        if memory is None or kept is None:
            return SAY.untried(name, "no memory controller to count them by")
        there = sum(1 for _ in os.walk(memory.mount))
        dying = max(kept - there, 0)
        evidence = f"{kept} memory groups in the kernel, {there} directories"
    if dying <= DYING_COUNT_MAX:
        return SAY.ok(name, evidence, values={"dying_count": dying})
    return SAY.warn(
        name,
        evidence,
        so="files that ended sandboxes read stay charged to them, and the kernel walks them all",
        fix="echo 3 > /proc/sys/vm/drop_caches, between runs",
        values={"dying_count": dying},
    )


def _words(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text().split())
    except OSError:
        return ()
