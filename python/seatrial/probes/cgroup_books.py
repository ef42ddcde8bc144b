"""The books of one control group directory: CPU time and memory, read from v1 or v2 files.

A file that is not there (an older kernel, a controller that is off, a group that is gone) makes
its number None, never zero.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: v2 kernel memory, for kernels whose memory.stat has no "kernel" line (before 5.18).
V2_KERNEL_PARTS: Final = ("kernel_stack", "pagetables", "percpu", "sock", "slab")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuReading:
    """CPU time charged to a group so far, removed children included.

    ``total_ns`` is exact. On v1 the split comes in ticks of 10 ms, so it means nothing for a
    sandbox that used less than a few of them.
    """

    total_ns: int
    user_ns: int | None
    system_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """Memory charged to a group now, and its highest point; None: this kernel does not say."""

    usage_bytes: int
    anon_bytes: int | None
    file_bytes: int | None
    shmem_bytes: int | None
    kernel_bytes: int | None
    peak_bytes: int | None


def read_v1_cpu(place: Path) -> CpuReading | None:
    """Read cpuacct; the total is in nanoseconds, the split in clock ticks."""
    total = read_int(place / "cpuacct.usage")
    if total is None:
        return None
    ticks = read_keys(place / "cpuacct.stat")
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    user, system = ticks.get("user"), ticks.get("system")
    return CpuReading(
        total_ns=total,
        user_ns=None if user is None else user * tick_ns,
        system_ns=None if system is None else system * tick_ns,
    )


def read_v2_cpu(place: Path) -> CpuReading | None:
    """Read cpu.stat, which every v2 group has, whatever its controllers."""
    keys = read_keys(place / "cpu.stat")
    if "usage_usec" not in keys:
        return None
    user, system = keys.get("user_usec"), keys.get("system_usec")
    return CpuReading(
        total_ns=keys["usage_usec"] * 1000,
        user_ns=None if user is None else user * 1000,
        system_ns=None if system is None else system * 1000,
    )


def read_v1_memory(place: Path) -> MemoryReading | None:
    """Read the memory controller's files of v1."""
    usage = read_int(place / "memory.usage_in_bytes")
    if usage is None:
        return None
    # The "total_" lines include the groups below, as memory.usage_in_bytes does.
    stat = read_keys(place / "memory.stat")
    return MemoryReading(
        usage_bytes=usage,
        anon_bytes=stat.get("total_rss"),
        file_bytes=stat.get("total_cache"),
        shmem_bytes=stat.get("total_shmem"),
        kernel_bytes=read_int(place / "memory.kmem.usage_in_bytes"),
        peak_bytes=read_int(place / "memory.max_usage_in_bytes"),
    )


def read_v2_memory(place: Path) -> MemoryReading | None:
    """Read the memory controller's files of v2."""
    usage = read_int(place / "memory.current")
    if usage is None:
        return None
    stat = read_keys(place / "memory.stat")
    parts = [stat[name] for name in V2_KERNEL_PARTS if name in stat]
    return MemoryReading(
        usage_bytes=usage,
        anon_bytes=stat.get("anon"),
        file_bytes=stat.get("file"),
        shmem_bytes=stat.get("shmem"),
        kernel_bytes=stat.get("kernel", sum(parts) if parts else None),
        peak_bytes=read_int(place / "memory.peak"),
    )


def read_text(path: Path) -> str:
    """Give a file's text, or nothing when it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        # The group is gone, or this kernel has no such file: both mean "unknown" to the caller.
        return ""


def read_int(path: Path) -> int | None:
    """Give the number in a file, or None."""
    text = read_text(path).strip()
    return int(text) if text.isdigit() else None


def read_words(path: Path) -> list[str]:
    """Give the words in a file."""
    return read_text(path).split()


def read_keys(path: Path) -> dict[str, int]:
    """Map the keys of ``key value`` lines to their numbers."""
    pairs = (line.split() for line in read_text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004 - key and value
