"""Memory of processes and of the host, in the ways that can be added up and those that cannot.

PSS splits a shared page among its sharers, so it adds up over sandboxes; USS counts private pages
only; RSS counts a shared page once for each sharer and so over-states a set of processes. None of
them sees kernel memory: read the cgroup's charge and the host's slab beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

KIB: Final = 1024
PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """User memory of one process or of a set of them."""

    pss_bytes: int
    uss_bytes: int
    rss_bytes: int
    private_dirty_bytes: int
    """The part of USS that was written to: no file holds it, and the next one needs it too."""
    process_count: int
    unreadable_count: int
    """Processes of the set that had no readable memory map: gone meanwhile, or not ours to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Memory of the whole machine; None: this kernel does not say."""

    available_bytes: int
    free_bytes: int
    slab_bytes: int
    slab_unreclaimable_bytes: int
    kernel_stack_bytes: int | None
    page_tables_bytes: int | None
    percpu_bytes: int | None
    shmem_bytes: int | None


def read_processes_memory(pids: Iterable[int], *, proc: Path = PROC) -> ProcessMemory:
    """Sum the user memory of a set of processes; one that ended meanwhile is counted apart."""
    pss = uss = rss = dirty = seen = unreadable = 0
    for pid in sorted(set(pids)):
        fields = parse_kib_fields(_read_text(proc / str(pid) / "smaps_rollup"))
        if "Pss" not in fields:
            unreadable += 1
            continue
        seen += 1
        pss += fields["Pss"]
        rss += fields.get("Rss", 0)
        own = fields.get("Private_Dirty", 0) + fields.get("Private_Hugetlb", 0)
        dirty += own
        uss += own + fields.get("Private_Clean", 0)
    return ProcessMemory(
        pss_bytes=pss,
        uss_bytes=uss,
        rss_bytes=rss,
        private_dirty_bytes=dirty,
        process_count=seen,
        unreadable_count=unreadable,
    )


def read_host_memory(*, proc: Path = PROC) -> HostMemory:
    """Read /proc/meminfo.

    Raises:
        OSError: there is no /proc here.
    """
    fields = parse_kib_fields((proc / "meminfo").read_text())
    return HostMemory(
        available_bytes=fields["MemAvailable"],
        free_bytes=fields["MemFree"],
        slab_bytes=fields["Slab"],
        slab_unreclaimable_bytes=fields["SUnreclaim"],
        kernel_stack_bytes=fields.get("KernelStack"),
        page_tables_bytes=fields.get("PageTables"),
        percpu_bytes=fields.get("Percpu"),
        shmem_bytes=fields.get("Shmem"),
    )


def parse_kib_fields(text: str) -> dict[str, int]:
    """Map the names of ``Name:   123 kB`` lines to bytes; other lines are skipped."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():  # noqa: PLR2004 - number and unit
            found[name] = int(words[0]) * KIB
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
