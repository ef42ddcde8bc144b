"""What was left behind: processes, groups, mounts, network names and files that carry our label.

Everything here only looks. The finders take the texts of /proc or a directory, so that each can be
tested on a made-up machine; nothing is ever matched by more than an exact label or prefix of ours.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROC: Final = Path("/proc")
NET_CLASS: Final = Path("/sys/class/net")
NETNS_DIR: Final = Path("/run/netns")


class LeakKind(StrEnum):
    """What kind of thing stayed."""

    PROCESS = "process"
    CGROUP = "cgroup"
    MOUNT = "mount"
    NAMESPACE = "network-namespace"
    INTERFACE = "interface"
    FILE = "file"
    POD = "pod"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One thing that should be gone and is not; ``name`` is what removes it (pid, path, name)."""

    kind: LeakKind
    name: str
    detail: str = ""

    def __str__(self) -> str:
        """Give it as a person would name it."""
        return f"{self.kind} {self.name}" + (f" ({self.detail})" if self.detail else "")


def process_leaks(pids: Iterable[int], *, proc: Path = PROC) -> tuple[Leak, ...]:
    """Name the processes that still live, with their command lines."""
    return tuple(
        Leak(kind=LeakKind.PROCESS, name=str(pid), detail=command_line(pid, proc=proc))
        for pid in sorted(set(pids))
        if is_alive(pid, proc=proc)
    )


def mount_leaks(directory: Path, *, mountinfo: str) -> tuple[Leak, ...]:
    """Name the mounts at or below a directory, deepest first (the order to unmount them in)."""
    points = sorted(mount_points(directory, mountinfo=mountinfo), key=lambda p: -len(p.parts))
    return tuple(Leak(kind=LeakKind.MOUNT, name=str(point)) for point in points)


def mount_points(directory: Path, *, mountinfo: str) -> Iterator[Path]:
    """Give the mount points at or below a directory, in the order of the table."""
    for line in mountinfo.splitlines():
        fields = line.split()
        if len(fields) > 4:  # noqa: PLR2004 - proc(5): the mount point is the fifth field
            point = Path(fields[4].replace("\\040", " "))
            if point.is_relative_to(directory):
                yield point


def namespace_leaks(prefix: str, *, directory: Path = NETNS_DIR) -> tuple[Leak, ...]:
    """Name the network namespaces whose names begin with our label."""
    return tuple(
        Leak(kind=LeakKind.NAMESPACE, name=name) for name in _names(directory, prefix=prefix)
    )


def interface_leaks(prefix: str, *, directory: Path = NET_CLASS) -> tuple[Leak, ...]:
    """Name the network interfaces whose names begin with our label."""
    return tuple(
        Leak(kind=LeakKind.INTERFACE, name=name) for name in _names(directory, prefix=prefix)
    )


def file_leaks(paths: Iterable[Path]) -> tuple[Leak, ...]:
    """Name the files, sockets and directories that exist."""
    return tuple(
        Leak(kind=LeakKind.FILE, name=str(path)) for path in sorted(paths) if os.path.lexists(path)
    )


def group_leaks(directories: Iterable[Path]) -> tuple[Leak, ...]:
    """Name the control group directories that exist."""
    return tuple(
        Leak(kind=LeakKind.CGROUP, name=str(path)) for path in directories if path.is_dir()
    )


# --- processes ---------------------------------------------------------------------------------


def processes_with(variable: str, *, proc: Path = PROC) -> dict[int, str]:
    """Map the live processes with a variable in their environment to its value.

    A process whose environment is not ours to read has no label of ours.
    """
    wanted = variable.encode() + b"="
    found: dict[int, str] = {}
    for pid in _pids(proc):
        try:
            environ = (proc / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        for entry in environ.split(b"\0"):
            if entry.startswith(wanted) and is_alive(pid, proc=proc):
                found[pid] = entry[len(wanted) :].decode("utf-8", errors="replace")
    return found


def descendants(roots: Iterable[int], *, proc: Path = PROC) -> tuple[int, ...]:
    """Give the roots and everything below them, in ascending order."""
    children: dict[int, list[int]] = {}
    for pid in _pids(proc):
        fields = stat_fields(pid, proc=proc)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return tuple(sorted(found))


def stat_fields(pid: int, *, proc: Path = PROC) -> tuple[str, ...]:
    """Give the fields of /proc/PID/stat after the name: state, parent, group...; empty: gone."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except OSError:
        return ()
    # The name stands in parentheses and may itself hold spaces and parentheses.
    return tuple(text.rpartition(")")[2].split())


def start_ticks(pid: int, *, proc: Path = PROC) -> int | None:
    """Give when a process started (ticks since boot), which tells it from a later namesake."""
    fields = stat_fields(pid, proc=proc)
    # proc(5): starttime is field 22 of the line, so 19 places after the state.
    return int(fields[19]) if len(fields) > 19 else None  # noqa: PLR2004 - as said above


def is_alive(pid: int, *, proc: Path = PROC) -> bool:
    """Tell whether a process runs; a zombie has ended and only waits for its parent."""
    fields = stat_fields(pid, proc=proc)
    return bool(fields) and fields[0] not in {"Z", "X"}


def wait_process_end(pid: int, *, deadline_ns: int) -> bool:
    """Wait for a process to end, by its descriptor; False: it still ran at the deadline."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        rest_ns = max(0, deadline_ns - time.monotonic_ns())
        # Rounded up, so that the wait does not turn into a spin just before the deadline.
        return bool(poller.poll(-(-rest_ns // 1_000_000)))
    finally:
        os.close(descriptor)


def command_line(pid: int, *, proc: Path = PROC) -> str:
    """Give a command line as one text, or the bracketed name of a process without one."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    text = b" ".join(words).decode("utf-8", errors="replace")
    return text or f"[{process_name(pid, proc=proc)}]"


def process_name(pid: int, *, proc: Path = PROC) -> str:
    """Give the kernel's short name of a process."""
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _pids(proc: Path) -> list[int]:
    try:
        return [int(entry.name) for entry in os.scandir(proc) if entry.name.isdigit()]
    except OSError:
        return []


def _names(directory: Path, *, prefix: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(directory) if _has(entry.name, prefix))
    except OSError:
        return []


def _has(name: str, prefix: str) -> bool:
    # An empty prefix would make every name on the machine ours.
    return bool(prefix) and name.startswith(prefix)
