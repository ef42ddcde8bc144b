"""Everything that the bench ``inside`` can say, and which work gives which of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.benches.tool_output import fio_metric, sides_of
from seatrial.model.experiment import FIO_JOBS, InsideTest
from seatrial.model.metric import Direction, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.model.experiment import InsideSettings
    from seatrial.model.plan import Point

TEST: Final = "test"
VARIANT: Final = "variant"
GUEST_CLOCK: Final = "guest's monotonic clock"
TOOL_CLOCK: Final = "as the tool says it, on the clock of its sandbox"
CGROUP: Final = "control group of the sandbox"


def _cost(name: str, meaning: str, method: str) -> Metric:
    return Metric(name=name, unit="ns", direction=Direction.LOWER, meaning=meaning, method=method)


def _rate(name: str, meaning: str, method: str = TOOL_CLOCK) -> Metric:
    return Metric(
        name=name, unit="bytes/s", direction=Direction.HIGHER, meaning=meaning, method=method
    )


def _size(name: str, meaning: str, method: str, *, is_judged: bool = True) -> Metric:
    direction = Direction.LOWER if is_judged else Direction.NONE
    return Metric(name=name, unit="bytes", direction=direction, meaning=meaning, method=method)


PROBE_METRICS: Final = (
    _cost(
        "syscall_ns",
        "One getpid system call, made directly",
        f"batch time / 5000 calls, {GUEST_CLOCK}",
    ),
    _cost(
        "page_fault_ns",
        "First touch of an anonymous page, its share of mmap and munmap included",
        f"batch time / 512 pages, {GUEST_CLOCK}",
    ),
    _rate(
        "file_write_bytes_per_s",
        "Sequential 64 KiB writes of a 4 MiB file on the host's disk, fsync included",
        f"bytes / batch time, {GUEST_CLOCK}",
    ),
    _rate(
        "file_read_bytes_per_s",
        "Sequential 64 KiB reads of a 4 MiB file that is in the page cache",
        f"bytes / batch time, {GUEST_CLOCK}",
    ),
    _cost(
        "fork_ns",
        "fork of a small static process, whose child ends at once and is waited for",
        f"batch time / 20 processes, {GUEST_CLOCK}",
    ),
    _cost(
        "fork_exec_ns",
        "The same, whose child first becomes a static program that does nothing",
        f"batch time / 10 processes, {GUEST_CLOCK}",
    ),
    _rate(
        "memory_copy_bytes_per_s",
        "Copying 32 MiB of memory to 32 MiB of memory, both touched before; bytes counted once",
        f"bytes / batch time, {GUEST_CLOCK}",
    ),
)
HELLO_METRICS: Final = (
    _cost(
        "hello_real_ns",
        "A sandbox whose static program says one word and ends: from release to its runtime's end",
        "exit_seen_at_ns - due_at_ns, host's monotonic clock",
    ),
    _cost(
        "hello_cpu_ns",
        "All CPU time of that, in user and system mode",
        f"{CGROUP}, exact",
    ),
    _cost(
        "hello_user_ns",
        "Its part in user mode; in ticks of 10 ms where control groups are of version 1",
        CGROUP,
    ),
    _cost(
        "hello_system_ns",
        "Its part in system mode; in ticks of 10 ms where control groups are of version 1",
        CGROUP,
    ),
    _cost(
        "hello_client_cpu_ns",
        "CPU time of the program that was started and of what it waited for, which misses "
        "whatever a daemon or a helper does",
        "rusage of the direct child",
    ),
)
MEMORY_METRICS: Final = (
    _size(
        "idle_pss_bytes",
        "Proportional set size of all processes of one idle sandbox, its runtime's included",
        "smaps_rollup of the tracked processes, on the host",
    ),
    _size("idle_cgroup_bytes", "Memory charged to its control group, kernel memory too", CGROUP),
    _size(
        "guest_used_bytes",
        "Used memory as the sandbox sees it: total less free, buffers and cache; where the "
        "sandbox shows the host's own /proc/meminfo it is the host's, so it is never compared",
        "/proc/meminfo inside",
        is_judged=False,
    ),
    _size(
        "guest_total_bytes",
        "All memory as the sandbox sees it",
        "/proc/meminfo inside",
        is_judged=False,
    ),
)
DD_METRICS: Final = (
    _rate("dd_write_bytes_per_s", "dd of zeroes into a new file, in small blocks, no fsync"),
    Metric(
        name="dd_write_ops_per_s",
        unit="ops/s",
        direction=Direction.HIGHER,
        meaning="The same as write calls a second: with small blocks dd measures those",
        method=TOOL_CLOCK,
    ),
    _rate("dd_read_bytes_per_s", "dd of that file to /dev/null, in small blocks, from caches"),
    Metric(
        name="dd_read_ops_per_s",
        unit="ops/s",
        direction=Direction.HIGHER,
        meaning="The same as read calls a second",
        method=TOOL_CLOCK,
    ),
    _rate(
        "dd_cold_read_bytes_per_s",
        "The same in blocks of 1 MiB, after the host has dropped the file from its page cache",
    ),
    _rate("dd_sync_write_bytes_per_s", "dd of zeroes in blocks of 1 MiB, fsync included"),
)
FIO_METRICS: Final = tuple(
    _rate(
        fio_metric(job, side),
        f"fio, {job}, bytes {'read' if side == 'read' else 'written'} by all threads together",
    )
    for job in FIO_JOBS
    for side in sides_of(job)
)
NETWORK_METRICS: Final = (
    _rate("network_to_bytes_per_s", "iperf3, one TCP stream into the sandbox, at the receiver"),
    _rate("network_from_bytes_per_s", "iperf3, one TCP stream out of the sandbox, at the receiver"),
    _rate("download_wget_bytes_per_s", "wget of a file from our server on the host"),
    _rate("download_curl_bytes_per_s", "curl of the same file from our server on the host"),
    _rate("upload_curl_bytes_per_s", "curl of the same file to our server on the host"),
)
FUNCTION_METRICS: Final = (
    _cost(
        "function_native_ns",
        "Counting primes in the guest's own process",
        f"batch time, {GUEST_CLOCK}",
    ),
    _cost(
        "function_python_ns",
        "The same in Python, in a process of its own: interpreter started, modules imported, "
        "function run, process ended",
        f"from fork to exit seen, {GUEST_CLOCK}",
    ),
    _cost(
        "function_python_inner_ns",
        "The function in Python alone, without what it takes to start",
        "time.monotonic_ns inside",
    ),
)
METRICS: Final = (
    *PROBE_METRICS,
    *HELLO_METRICS,
    *MEMORY_METRICS,
    *DD_METRICS,
    *FIO_METRICS,
    *NETWORK_METRICS,
    *FUNCTION_METRICS,
)

#: What each piece of work measures: names as in the table ``attempts``.
MEASURED: Final[Mapping[InsideTest, Mapping[str, tuple[str, ...]]]] = {
    InsideTest.HELLO: {"hello": tuple(one.name for one in HELLO_METRICS)},
    InsideTest.MEMORY: {"memory": tuple(one.name for one in MEMORY_METRICS)},
    InsideTest.DD: {
        "write": ("dd_write_bytes_per_s", "dd_write_ops_per_s"),
        "read": ("dd_read_bytes_per_s", "dd_read_ops_per_s"),
        "cold-read": ("dd_cold_read_bytes_per_s",),
        "sync-write": ("dd_sync_write_bytes_per_s",),
    },
    InsideTest.FIO: {
        job: tuple(fio_metric(job, side) for side in sides_of(job)) for job in FIO_JOBS
    },
    InsideTest.NETWORK: {
        "iperf3-to": ("network_to_bytes_per_s",),
        "iperf3-from": ("network_from_bytes_per_s",),
        "wget": ("download_wget_bytes_per_s",),
        "curl": ("download_curl_bytes_per_s",),
        "curl-upload": ("upload_curl_bytes_per_s",),
    },
    InsideTest.FUNCTIONS: {
        "native": ("function_native_ns",),
        "python": ("function_python_ns", "function_python_inner_ns"),
    },
}


def inside_test(point: Point) -> InsideTest:
    """Give the test of a point; the one without values is that of the probes."""
    return InsideTest(str(point.values.get(TEST, InsideTest.PROBES)))


def works_of(point: Point, settings: InsideSettings) -> tuple[str, ...]:
    """Give the pieces of work of a point, in the order of their tables."""
    test = inside_test(point)
    if test is InsideTest.FIO:
        return settings.fio_jobs
    return tuple(MEASURED.get(test, {}))
