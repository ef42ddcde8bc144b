"""Memory of process sets and of the host, on a made-up /proc."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.probes.memory import (
    parse_kib_fields,
    read_host_memory,
    read_processes_memory,
)

if TYPE_CHECKING:
    from pathlib import Path

ROLLUP = """\
00400000-7ffe1e7f7000 ---p 00000000 00:00 0                              [rollup]
Rss:                 100 kB
Pss:                  40 kB
Pss_Dirty:            10 kB
Private_Clean:        12 kB
Private_Dirty:         8 kB
Private_Hugetlb:       0 kB
"""
MEMINFO = """\
MemTotal:       24681440 kB
MemFree:         1000 kB
MemAvailable:    2000 kB
Shmem:             30 kB
Slab:             400 kB
SUnreclaim:       100 kB
KernelStack:       16 kB
PageTables:         8 kB
HugePages_Total:       0
"""


def add(proc: Path, pid: int, text: str) -> None:
    """Put a process into the made-up /proc."""
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "smaps_rollup").write_text(text)


def test_a_set_is_summed_and_the_unreadable_counted(tmp_path: Path) -> None:
    """PSS, USS and RSS add up; a process that ended meanwhile is counted, not guessed."""
    add(tmp_path, 10, ROLLUP)
    add(tmp_path, 11, ROLLUP)
    add(tmp_path, 12, "")
    memory = read_processes_memory([10, 11, 11, 12, 13], proc=tmp_path)
    assert memory.pss_bytes == 2 * 40 * 1024
    assert memory.uss_bytes == 2 * 20 * 1024
    assert memory.private_dirty_bytes == 2 * 8 * 1024, "text of a program is not written to"
    assert memory.rss_bytes == 2 * 100 * 1024
    assert (memory.process_count, memory.unreadable_count) == (2, 2)


def test_no_processes_hold_no_memory(tmp_path: Path) -> None:
    """An empty set is a true zero."""
    memory = read_processes_memory([], proc=tmp_path)
    assert (memory.pss_bytes, memory.process_count, memory.unreadable_count) == (0, 0, 0)


def test_host_fields_that_a_kernel_lacks_are_unknown(tmp_path: Path) -> None:
    """Percpu came with 4.20; without it the answer is None."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    memory = read_host_memory(proc=tmp_path)
    assert memory.available_bytes == 2000 * 1024
    assert memory.slab_bytes == 400 * 1024
    assert memory.slab_unreclaimable_bytes == 100 * 1024
    assert memory.percpu_bytes is None


def test_this_process_is_readable() -> None:
    """The real /proc gives this process a USS no larger than its PSS, and that than its RSS."""
    import os

    memory = read_processes_memory([os.getpid()])
    assert 0 < memory.uss_bytes <= memory.pss_bytes <= memory.rss_bytes


def test_lines_of_other_forms_are_skipped() -> None:
    """Counts without a unit and headings are no sizes."""
    assert parse_kib_fields("a: 1 kB\nb: 2\nc d\ne: x kB\n") == {"a": 1024}
