"""Whether the host can take so many sandboxes at once: predicted from one, before they are tried.

One live sandbox is measured: memory, threads, and the launcher's descriptors for it. That many
times as much, with a margin for what a start needs and an idle sandbox does not, has to fit into
what is free now. A host that runs out of memory or of process ids kills bystanders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.benches.settling import settled_memory
from seatrial.errors import NoRoom
from seatrial.probes.memory import parse_kib_fields, read_processes_memory
from seatrial.units import MIB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.base import DriverSession
    from seatrial.probes.cgroup_books import MemoryReading

PROC: Final = Path("/proc")
#: A start needs more than an idle sandbox, and the first one shares its pages with nobody yet.
MARGIN_RATIO: Final = 1.25
#: What has to stay free on the host: page cache and bystanders live in it.
RESERVE_SHARE: Final = 0.05
RESERVE_BYTES_MIN: Final = 256 * MIB
#: Of process ids and descriptors, which fail at once when they run out.
TASKS_RESERVE_COUNT: Final = 1_000
DESCRIPTORS_RESERVE_COUNT: Final = 64
#: Before a sandbox that was asked to stop is killed, and for each that is asked with it.
STOP_GRACE_NS: Final = 5_000_000_000
STOP_GRACE_EACH_NS: Final = 100_000_000


def stop_grace_ns(count: int) -> int:
    """How long so many sandboxes that are asked to stop at once may take before they are killed.

    A runtime's own clean-up takes tens of milliseconds of processor time; that of four hundred on
    two processors is no sign that they do not obey.
    """
    return STOP_GRACE_NS + count * STOP_GRACE_EACH_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one live sandbox takes."""

    memory_bytes: int
    tasks_count: int
    """Threads of all its processes: each has a process id."""
    descriptors_count: int
    """That the launcher holds for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is free on the host now; None: there is no limit."""

    memory_bytes: int
    memory_reserve_bytes: int
    tasks_count: int | None
    descriptors_count: int | None


def check_room(count: int, *, needs: Needs, room: Room, driver: str) -> None:
    """Refuses what will not fit.

    Raises:
        NoRoom: says which of memory, process ids or descriptors, how much is needed and free.
    """
    memory_bytes = round(count * needs.memory_bytes * MARGIN_RATIO)
    free_bytes = max(room.memory_bytes - room.memory_reserve_bytes, 0)
    if memory_bytes > free_bytes:
        most = int(free_bytes / (needs.memory_bytes * MARGIN_RATIO))
        raise NoRoom(
            f"oom-guard: {count} sandboxes of {driver} would need about "
            f"{format_bytes(memory_bytes)} ({format_bytes(needs.memory_bytes)} each, and a "
            f"quarter more); {format_bytes(free_bytes)} may be used",
            hint=f"ask for at most {most}, or for a smaller background",
        )
    limits = (
        ("process ids", needs.tasks_count, room.tasks_count, "kernel.pid_max or threads-max"),
        ("descriptors", needs.descriptors_count, room.descriptors_count, "ulimit -Hn"),
    )
    for what, each, free, knob in limits:
        if free is not None and count * each > free:
            raise NoRoom(
                f"limit-guard: {count} sandboxes of {driver} would need {count * each} {what} "
                f"({each} each); {free} are free",
                hint=f"ask for at most {free // max(each, 1)}, or raise {knob}",
            )


def needs_of(session: DriverSession, plan_id: str, *, descriptors_before_count: int) -> Needs:
    """Measures one live sandbox; ``descriptors_before_count`` is of the launcher without it."""
    # What a daemon starts for a sandbox joins it when it is up already.
    settled = settled_memory(session, [plan_id]) if session.shared() is not None else None
    pids = tuple(session.processes(plan_id))
    charge = session.cgroups(plan_id).read_memory()
    # A lone sandbox has the program's text for itself; the next one shares it.
    user_bytes = (settled or read_processes_memory(pids)).private_dirty_bytes
    return Needs(
        memory_bytes=max(user_bytes, 0 if charge is None else own_bytes(charge), 1),
        tasks_count=sum(task_count(pid) for pid in pids),
        descriptors_count=max(descriptor_count(session.launcher.pid) - descriptors_before_count, 0),
    )


def own_bytes(charge: MemoryReading) -> int:
    """The part of a charge that one more sandbox takes again: all but the page cache of files."""
    file_bytes = (charge.file_bytes or 0) - (charge.shmem_bytes or 0)
    return max(charge.usage_bytes - max(file_bytes, 0), 0)


def room_now(launcher_pid: int, *, proc: Path = PROC) -> Room:
    """Reads what is free on the host, and for the launcher."""
    fields = parse_kib_fields((proc / "meminfo").read_text())
    tasks = (proc / "loadavg").read_text().split()[3].partition("/")[2]
    limits = [int((proc / "sys/kernel" / name).read_text()) for name in ("pid_max", "threads-max")]
    return Room(
        memory_bytes=fields["MemAvailable"],
        memory_reserve_bytes=max(RESERVE_BYTES_MIN, round(RESERVE_SHARE * fields["MemTotal"])),
        tasks_count=max(min(limits) - int(tasks) - TASKS_RESERVE_COUNT, 0),
        descriptors_count=_descriptors_left(launcher_pid, proc=proc),
    )


def descriptor_count(pid: int, *, proc: Path = PROC) -> int:
    """How many descriptors a process has open; 0 when that cannot be seen."""
    try:
        return sum(1 for _ in (proc / str(pid) / "fd").iterdir())
    except OSError:
        return 0


def task_count(pid: int, *, proc: Path = PROC) -> int:
    """How many threads a process has; 0 when it is gone."""
    try:
        return sum(1 for _ in (proc / str(pid) / "task").iterdir())
    except OSError:
        return 0


def _descriptors_left(pid: int, *, proc: Path) -> int | None:
    limit = _limits(proc / str(pid) / "limits").get("Max open files")
    if limit is None:
        return None
    used = descriptor_count(pid, proc=proc)
    return max(limit - used - DESCRIPTORS_RESERVE_COUNT, 0)


def _limits(path: Path) -> Mapping[str, int]:
    """The hard limits of a process, by name; unlimited ones are left out."""
    try:
        lines = path.read_text().splitlines()[1:]
    except OSError:
        return {}
    # Columns of a fixed width: name (26), soft limit (21), hard limit (21), unit.
    return {line[:26].strip(): int(line[47:68]) for line in lines if line[47:68].strip().isdigit()}
