"""The numbers of the bench ``density``; METHODOLOGY 4 defines each and says what it leaves out."""

from __future__ import annotations

from typing import Final

from seatrial.model.metric import Direction, Metric


def _memory(name: str, meaning: str, method: str) -> Metric:
    return Metric(
        name=name, unit="bytes", direction=Direction.LOWER, meaning=meaning, method=method
    )


_SHARES: Final = (
    _memory(
        "memory_pss_bytes",
        "Proportional set size of one sandbox's processes, runtime included",
        "sum of PSS over the process trees of all sandboxes / count, once settled; leaves out "
        "kernel memory and page cache",
    ),
    _memory(
        "memory_uss_bytes",
        "Memory that only this sandbox's processes map",
        "sum of private pages over the process trees / count, once settled; leaves out whatever is "
        "shared, if only among the sandboxes",
    ),
    _memory(
        "memory_rss_bytes",
        "Resident memory of one sandbox's processes, shared pages counted once for each sharer",
        "sum of RSS over the process trees / count, once settled; over-states, and leaves out "
        "kernel memory",
    ),
    _memory(
        "memory_cgroup_bytes",
        "What the kernel charges to one sandbox's cgroup, kernel memory and page cache included",
        "sum of the outer cgroups' charge / count, once settled; leaves out what others had paid "
        "for already",
    ),
    _memory(
        "memory_kernel_bytes",
        "Kernel memory that is charged to one sandbox's cgroup",
        "sum of the outer cgroups' kernel charge / count, once settled; leaves out what is charged "
        "to nobody",
    ),
    _memory(
        "memory_kernel_growth_bytes",
        "Growth of the host's kernel memory for one sandbox; neighbours move it",
        "growth of unreclaimable slab, kernel stacks, page tables and per-CPU memory / count",
    ),
    _memory(
        "memory_available_drop_bytes",
        "Drop of the host's MemAvailable for one sandbox; neighbours move it",
        "(MemAvailable before the first start - once settled) / count",
    ),
)

_TOTALS: Final = (
    _memory(
        "memory_pss_total_bytes",
        "PSS of all sandboxes together; its slope over count is the cost of one more",
        "sum of PSS over the process trees of all sandboxes, once settled",
    ),
    _memory(
        "memory_cgroup_total_bytes",
        "Cgroup charge of all sandboxes together",
        "sum of the outer cgroups' charge, once settled",
    ),
    _memory(
        "memory_daemon_bytes",
        "Memory of what serves all sandboxes, such as a container daemon; part of no other number",
        "PSS of its processes, once settled",
    ),
    _memory(
        "memory_guest_used_bytes",
        "Memory that the guest of one sandbox sees in use",
        "MemTotal - MemAvailable of /proc/meminfo inside; with a shared kernel that is the host's",
    ),
    _memory(
        "memory_guest_total_bytes",
        "Memory that the guest of one sandbox believes to have",
        "MemTotal of /proc/meminfo inside",
    ),
)

_IDLE: Final = (
    Metric(
        name="idle_cpu_ratio",
        unit="ratio",
        direction=Direction.LOWER,
        meaning="CPU that one idle sandbox uses, as a share of one processor",
        method="cgroup CPU time of all sandboxes over the idle window / count / window length",
    ),
    Metric(
        name="idle_switches_rps",
        unit="1/s",
        direction=Direction.LOWER,
        meaning="Context switches of one idle sandbox in a second",
        method="of all threads of all sandboxes over the idle window / count / window length",
    ),
    Metric(
        name="idle_drift_bytes_per_s",
        unit="bytes/s",
        direction=Direction.LOWER,
        meaning="By how much one idle sandbox's memory grows in a second",
        method="growth of PSS of all sandboxes over the idle window / count / window length",
    ),
    Metric(
        name="settle_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="How long memory took to settle after the last start",
        method="until three PSS readings in a row, 250 ms apart, were within 1 %",
    ),
    Metric(
        name="density_count",
        unit="count",
        direction=Direction.HIGHER,
        meaning="Most sandboxes that lived at once within the bounds that were asked for",
        method="started four at a time until one of the bounds was reached; those that live then",
    ),
)

METRICS: Final = (*_SHARES, *_TOTALS, *_IDLE)
