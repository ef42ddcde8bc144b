"""Which numbers stand in which column of a bench's table, and in which words.

Data, not code: a bench that is not listed gets its headline and then its other metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from seatrial.model.scalar import Scalar
from seatrial.model.summary import Statistic

if TYPE_CHECKING:
    from seatrial.model.plan import Point
    from seatrial.model.summary import BenchSummary


class Show(StrEnum):
    """What a column shows beside the value."""

    RATIO = "ratio"
    VALUE = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    heading: str
    metric: str
    statistics: tuple[Statistic, ...]
    """The first of these that was estimated."""
    show: Show = Show.VALUE
    only_at: tuple[str, Scalar] | None = None
    """Only at points with this value of an axis; None at all of them."""
    except_at: tuple[str, Scalar] | None = None
    """Not at points with this value of an axis, where it would repeat another column."""
    names_statistic: bool = False
    """Whether the heading is completed by the statistic that was really used."""

    def fits(self, point: Point) -> bool:
        """Whether the column makes sense at a point."""
        if self.except_at is not None and _is_at(point, self.except_at):
            return False
        return self.only_at is None or _is_at(point, self.only_at)

    def title(self, *used: Statistic) -> str:
        """The heading when these statistics stand under it."""
        names = " or ".join(used or self.statistics[:1]) if self.names_statistic else ""
        return f"{self.heading}, {names}" if names else self.heading


def _is_at(point: Point, axis: tuple[str, Scalar]) -> bool:
    return point.values.get(axis[0]) == axis[1]


LOCATION = (Statistic.P50, Statistic.MEAN, Statistic.PROPORTION)


def _main(
    heading: str,
    metric: str,
    *,
    names_statistic: bool = False,
    only_at: tuple[str, Scalar] | None = None,
    except_at: tuple[str, Scalar] | None = None,
) -> Column:
    return Column(
        heading=heading,
        metric=metric,
        statistics=LOCATION,
        show=Show.RATIO,
        only_at=only_at,
        except_at=except_at,
        names_statistic=names_statistic,
    )


def _also(heading: str, metric: str, *statistics: Statistic) -> Column:
    return Column(heading=heading, metric=metric, statistics=statistics or LOCATION)


#: A batch of one: its makespan is its latency.
ALONE = ("concurrency", 1)

#: What RunD's logs have: makespan and latency are two numbers, and p99 is of the pooled starts.
RUND_STARTS = (
    _main("Makespan, mean", "rund.makespan_mean"),
    _main("Latency, mean", "rund.latency_mean"),
    _also("Latency, p50", "rund.latency", Statistic.P50),
    _also("Latency, p90", "rund.latency", Statistic.P90),
    _also("Latency, p95", "rund.latency", Statistic.P95),
    _also("Latency, p99", "rund.latency", Statistic.P99),
    _also("p99 of a round, mean", "rund.p99_lower_mean"),
    _also("Host CPU a start", "rund.host_cpu_mean"),
    _also("Amplification", "rund.amplification"),
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "start": (
        _main("First byte", "start_first_byte_ns", names_statistic=True),
        _also("First byte, p99", "start_first_byte_ns", Statistic.P99),
        _main("Makespan of the batch", "start_makespan_ns", except_at=ALONE),
        _main("CPU a start", "start_cpu_ns"),
        _main("Delete", "teardown_ns"),
        _also("Success", "start_success_ratio"),
        _also("Amplification", "start_amplification_ratio"),
        _also("First byte, mean", "start_first_byte_ns", Statistic.MEAN),
        _also("First byte, p90", "start_first_byte_ns", Statistic.P90),
        _also("First byte, p95", "start_first_byte_ns", Statistic.P95),
        _also("First byte, largest", "start_first_byte_ns", Statistic.MAX),
        _also("Starts a second", "start_rps"),
        _main("First reply", "start_first_reply_ns"),
        _also("First reply, p99", "start_first_reply_ns", Statistic.P99),
        _also("User CPU", "start_cpu_user_ns", Statistic.MEAN),
        _also("System CPU", "start_cpu_system_ns", Statistic.MEAN),
        _also("CPU of the daemon", "start_daemon_cpu_ns"),
        _also("CPU of Seatrial", "start_tool_cpu_ns"),
        _also("CPU of the host", "start_host_cpu_ns"),
        _also("In nobody's books", "start_unbooked_cpu_ns"),
        _also("Delete, p99", "teardown_ns", Statistic.P99),
        _main("Delete of the batch", "teardown_makespan_ns", except_at=ALONE),
        _also("Release skew", "start_release_skew_ns"),
        _also("Image in page cache", "image_resident_ratio"),
        _also("CPU of the others", "background_cpu_ratio"),
        _also("Memory of the others", "background_memory_bytes"),
    ),
    "density": (
        _main("PSS a sandbox", "memory_pss_bytes"),
        _main("Cgroup charge", "memory_cgroup_bytes"),
        _also("MemAvailable drop", "memory_available_drop_bytes"),
        _also("Idle CPU", "idle_cpu_ratio"),
        _also("Idle switches", "idle_switches_rps"),
        _main("Largest count", "density_count"),
        _also("USS", "memory_uss_bytes"),
        _also("RSS", "memory_rss_bytes"),
        _also("Kernel, charged", "memory_kernel_bytes"),
        _also("Kernel, growth", "memory_kernel_growth_bytes"),
        _also("Daemon, all", "memory_daemon_bytes"),
        _also("Guest sees in use", "memory_guest_used_bytes"),
        _also("Guest believes to have", "memory_guest_total_bytes"),
        _also("Idle drift", "idle_drift_bytes_per_s"),
        _also("Settled after", "settle_ns"),
        Column(
            heading="One more, PSS",
            metric="memory_pss_total_bytes",
            statistics=(Statistic.SLOPE,),
            show=Show.RATIO,
        ),
        _also("Shared, PSS", "memory_pss_total_bytes", Statistic.FIXED),
        Column(
            heading="One more, cgroup",
            metric="memory_cgroup_total_bytes",
            statistics=(Statistic.SLOPE,),
            show=Show.RATIO,
        ),
        _also("Shared, cgroup", "memory_cgroup_total_bytes", Statistic.FIXED),
    ),
    "load": (
        _main("Response", "response_time_ns", names_statistic=True),
        _also("Response, p99", "response_time_ns", Statistic.P99),
        _main("Service", "service_time_ns", names_statistic=True),
        Column(
            heading="Service, p99",
            metric="service_time_ns",
            statistics=(Statistic.P99,),
            only_at=("mode", "closed"),
        ),
        _main("Achieved", "achieved_rps"),
        _main("CPU a request", "request_cpu_ns"),
        _also("Send lag, p99", "send_lag_ns", Statistic.P99),
        _also("Failed", "failed_ratio"),
        _also("Wire", "wire_time_ns"),
    ),
    "fleet": (
        _main("Response", "response_time_ns", names_statistic=True),
        _also("Response, p99", "response_time_ns", Statistic.P99),
        _main("Achieved", "fleet_achieved_rps"),
        _also("Answered", "answered_ratio"),
        _also("Fastest server", "best_target_ns"),
        _also("Slowest server", "worst_target_ns"),
        _also("Spread", "target_spread_ratio"),
        _also("Service", "service_time_ns"),
        _main("CPU a request", "request_cpu_ns"),
        _also("Offered", "fleet_offered_rps"),
        _also("Send lag, p99", "send_lag_ns", Statistic.P99),
        _also("Failed", "failed_ratio"),
    ),
    "rpc": (
        _main("All clients", "rpc_rps"),
        _also("A client", "client_rps"),
        _main("Service", "service_time_ns", names_statistic=True),
        _also("Service, p99", "service_time_ns", Statistic.P99),
        _main("CPU a request", "request_cpu_ns"),
        _also("Time-outs", "timeouts_count"),
        _also("Corrupt", "corrupt_count"),
        _also("Failed", "failed_ratio"),
    ),
    "rund-time": RUND_STARTS,
    "rund-density": RUND_STARTS,
    "rund-mem": (_main("PSS a sandbox", "rund.memory_pss_mean"),),
    "inside": (
        _main("System call", "syscall_ns"),
        _main("Page fault", "page_fault_ns"),
        _main("File write", "file_write_bytes_per_s"),
        _main("File read", "file_read_bytes_per_s"),
        _main("Fork", "fork_ns"),
        _main("Fork, exec", "fork_exec_ns"),
        _main("Memory copy", "memory_copy_bytes_per_s"),
        _main("Hello, real", "hello_real_ns"),
        _also("User", "hello_user_ns"),
        _also("System", "hello_system_ns"),
        _main("All CPU", "hello_cpu_ns"),
        _also("Client's CPU", "hello_client_cpu_ns"),
        _main("PSS", "idle_pss_bytes"),
        _main("Cgroup charge", "idle_cgroup_bytes"),
        _also("Guest: used", "guest_used_bytes"),
        _also("Guest: total", "guest_total_bytes"),
        _main("Write", "dd_write_bytes_per_s"),
        _also("Write calls", "dd_write_ops_per_s"),
        _main("Read", "dd_read_bytes_per_s"),
        _also("Read calls", "dd_read_ops_per_s"),
        _main("Read, dropped", "dd_cold_read_bytes_per_s"),
        _main("Write, fsync", "dd_sync_write_bytes_per_s"),
        _main("read", "fio_read_bytes_per_s"),
        _main("write", "fio_write_bytes_per_s"),
        _main("randread", "fio_randread_bytes_per_s"),
        _main("randwrite", "fio_randwrite_bytes_per_s"),
        _main("randrw: read", "fio_randrw_read_bytes_per_s"),
        _main("randrw: write", "fio_randrw_write_bytes_per_s"),
        _main("iperf3 to", "network_to_bytes_per_s"),
        _main("iperf3 from", "network_from_bytes_per_s"),
        _main("wget to", "download_wget_bytes_per_s"),
        _main("curl to", "download_curl_bytes_per_s"),
        _main("curl from", "upload_curl_bytes_per_s"),
        _main("Native", "function_native_ns"),
        _main("Python, started", "function_python_ns"),
        _main("Python, inner", "function_python_inner_ns"),
    ),
}

#: The numbers of the figure that shows all ratios at a glance: metric and what it is called, after
#: the bench that it is of.
GLANCE: tuple[Column, ...] = (
    _main("start: first byte", "start_first_byte_ns"),
    _main("start: CPU", "start_cpu_ns"),
    Column(
        heading="density: one more, PSS",
        metric="memory_pss_total_bytes",
        statistics=(Statistic.SLOPE,),
    ),
    _main("load: response", "response_time_ns", names_statistic=True),
    _main("load: peak rate", "achieved_rps", only_at=("mode", "closed")),
    _main("fleet: response", "response_time_ns", names_statistic=True),
    _main("rpc: calls", "rpc_rps"),
    _main("inside: system call", "syscall_ns"),
    _main("inside: page fault", "page_fault_ns"),
)


def columns_of(bench: BenchSummary) -> tuple[Column, ...]:
    """The columns of a bench's table."""
    known = COLUMNS.get(bench.name)
    if known is not None:
        return known
    others = [name for name in bench.metrics if name != bench.headline]
    return tuple(_main(name.replace("_", " "), name) for name in (bench.headline, *others))
