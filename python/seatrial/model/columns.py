"""The contract of the tables in a run directory: name, Arrow type, unit and meaning of a column.

A table holds raw instants and readings; durations are derived when they are needed. Columns are
only ever added within one schema version. The unit and the meaning travel in the Parquet files.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from seatrial.model.inside_tables import ATTEMPTS, PROBES, READINGS
from seatrial.model.sandbox_tables import (
    BACKGROUND,
    BATCHES,
    BOOKS,
    FILL,
    IDLE,
    LIMITS,
    MEMORY,
    ROLES,
    SENTINEL,
    STARTS,
)
from seatrial.model.table import INSTANT, ArrowType, Table
from seatrial.model.table import maybe as _maybe
from seatrial.model.table import whole as _whole

# History of the run directory's format:
# 1  first version
SCHEMA_VERSION: Final = 1


REQUESTS: Final = Table(
    name="requests",
    meaning="one row for each request that the load engine intended",
    columns=(
        _whole("intended_at_ns", INSTANT, "when it was due; closed loop: the slot was free"),
        _maybe("sent_at_ns", INSTANT, "its first byte was handed to the kernel"),
        _maybe("first_byte_at_ns", INSTANT, "the first byte of the reply was read"),
        _maybe("done_at_ns", INSTANT, "the last byte of a whole reply was read"),
        _whole(
            "outcome",
            "",
            "0 ok, 1 timeout, 2 refused, 3 reset, 4 protocol error, 5 application error, 6 unsent",
            type=ArrowType.UINT8,
        ),
        _maybe("connection", "", "number of the connection; null: unsent", type=ArrowType.UINT32),
        _whole("request_id", "", "number of the request", type=ArrowType.UINT64),
        _whole("demand_ns", "ns", "service demand that was sent with it"),
        _maybe("server_service_ns", "ns", "the server's own time: request read to reply ready"),
        _maybe("kernel_sent_at_ns", INSTANT, "the kernel gave it to the device"),
        _maybe("kernel_received_at_ns", INSTANT, "the kernel got its reply from the device"),
        _whole(
            "phase", "", "0 warm-up, 1 measure, 3 cool-down; by intention", type=ArrowType.UINT8
        ),
    ),
)

SAMPLES: Final = Table(
    name="samples",
    meaning="one row for each single reading of a metric",
    columns=(
        _whole("metric", "", "name in the metric registry", type=ArrowType.UTF8),
        _whole("value", "unit of the metric", "the reading", type=ArrowType.FLOAT64),
        _whole("position", "", "its place in time within the trial, from 0"),
    ),
)


WINDOWS: Final = Table(
    name="windows",
    meaning="one row for each timed window: who else used the machine meanwhile",
    columns=(
        _whole("name", "", "what was timed in the window", type=ArrowType.UTF8),
        _whole("started_at_ns", INSTANT, "the window began"),
        _whole("ended_at_ns", INSTANT, "the window ended"),
        _maybe("own_cpu_ns", "ns", "CPU time used by Seatrial and its sandboxes"),
        _maybe("host_busy_ns", "ns", "CPU time used by everybody on the host"),
        _maybe("steal_ns", "ns", "CPU time that the hypervisor gave to another guest"),
        _maybe("processors_count", "count", "processors of the host"),
        _maybe("gate_wait_ns", "ns", "waited for quiet before the window"),
        _maybe("was_quiet", "", "the host was quiet when it began", type=ArrowType.BOOL),
        _maybe("foreign_cpu_ratio", "share of all CPU", "used by others", type=ArrowType.FLOAT64),
        _maybe("steal_ratio", "share of all CPU", "stolen", type=ArrowType.FLOAT64),
    ),
)

LOADS: Final = Table(
    name="loads",
    meaning="one row for each load that the engine offered: its window and its counters",
    columns=(
        _maybe("agent", "", "the agent that offered it; null: the only one", type=ArrowType.UTF8),
        _whole("started_at_ns", INSTANT, "the load began"),
        _whole("ended_at_ns", INSTANT, "the load was over, drain included"),
        _whole("threads_count", "count", "threads of the load engine"),
        _whole("measure_start_ns", INSTANT, "the measure phase began"),
        _whole("measure_end_ns", INSTANT, "the measure phase ended"),
        _whole("intended_count", "count", "requests that were due, in all phases"),
        _whole("sent_count", "count", "requests that were sent"),
        _whole("ok_count", "count", "correct replies"),
        _whole("timeout_count", "count", "requests without a reply in time"),
        _whole("error_count", "count", "requests that failed in another way"),
        _whole("records_dropped_count", "count", "records that found no room; 0 where sampled"),
        _maybe("records_stride", "count", "requests of an engine thread for each kept record"),
        _maybe("measured_intended_count", "count", "requests due in the measure phase"),
        _maybe("measured_ok_count", "count", "correct replies to those"),
        _maybe("achieved_count", "count", "correct replies that came in the measure phase"),
        _maybe(
            "counted_until_ns",
            INSTANT,
            "until when those are counted; null: the end of the measure phase",
        ),
        _maybe("backlog_middle_count", "count", "due and not ended in the middle of the phase"),
        _maybe("backlog_end_count", "count", "the same at its end"),
        _maybe("offered_late_count", "count", "requests due in between"),
        _maybe("measured_sent_count", "count", "requests of the measure phase that were sent"),
        _maybe("measured_timeout_count", "count", "those without a reply in time"),
        _maybe("measured_unsent_count", "count", "those without a free place by their deadline"),
        _maybe("queued_count", "count", "requests of all phases that had to wait for a free place"),
        _maybe("arrival", "", "law of the arrivals; closed: none", type=ArrowType.UTF8),
        _maybe("pattern", "", "how the rate changed over time", type=ArrowType.UTF8),
        _maybe("arrival_gaps_count", "count", "gaps or requests that were held against the law"),
        _maybe(
            "arrival_statistic",
            "",
            "Anderson and Darling's A squared; fixed: p99 of |sent - intended| in gaps",
            type=ArrowType.FLOAT64,
        ),
        _maybe("arrival_distance", "", "Kolmogorov and Smirnov's distance", type=ArrowType.FLOAT64),
        _maybe("arrivals_are_kept", "", "the sends follow the law", type=ArrowType.BOOL),
        _maybe(
            "planned_count",
            "count",
            "arrivals that the process has in the measure phase; null: their scatter is not known",
            type=ArrowType.FLOAT64,
        ),
        _maybe(
            "planned_dispersion", "", "variance over mean of their number", type=ArrowType.FLOAT64
        ),
        _maybe("timestamps", "", "whose time stamps were used", type=ArrowType.UTF8),
        _maybe("timestamps_missing_count", "count", "replies without both stamps"),
        _maybe("timestamps_uncertainty_ns", "ns", "how well the kernel's clock could be converted"),
        _maybe("wait", "", "how the engine waited", type=ArrowType.UTF8),
        _maybe("guard_ns", "ns", "how long before an instant it began to spin"),
        _maybe("cpus_seen", "", "CPUs on which the engine was seen", type=ArrowType.UTF8),
        _maybe("generator_user_ns", "ns", "user CPU time of the engine"),
        _maybe("generator_system_ns", "ns", "system CPU time of the engine"),
        _maybe("sandbox_cpu_ns", "ns", "CPU time charged to the sandbox's cgroup meanwhile"),
        _maybe(
            "pacing_lag_ns_p50",
            "ns",
            "median of: due and a place free, to sent; the engine's own lateness",
            type=ArrowType.FLOAT64,
        ),
        _maybe("pacing_lag_ns_p99", "ns", "its 99th percentile", type=ArrowType.FLOAT64),
        _maybe("offered_rps", "1/s", "the rate asked for; null: closed", type=ArrowType.FLOAT64),
        _maybe("late_reply_count", "count", "replies to requests that had ended already"),
        _maybe("application_error_count", "count", "replies that say or carry a failure"),
    ),
)

TARGETS: Final = Table(
    name="targets",
    meaning="one row for each server under load: what all agents got from it in the measure phase",
    columns=(
        _whole("position", "", "its place among the servers, from 0"),
        _whole("target", "", "where it was reached", type=ArrowType.UTF8),
        _whole("sandbox", "", "id of the sandbox it was in", type=ArrowType.UTF8),
        _whole("intended_count", "count", "requests that were due there"),
        _whole("sent_count", "count", "requests that were sent"),
        _whole("ok_count", "count", "correct replies"),
        _whole("timeout_count", "count", "requests without a reply in time"),
        _whole("failed_count", "count", "requests without a correct reply, time-outs included"),
        *(
            _maybe(
                f"response_ns_{name}",
                "ns",
                f"{what} of the response times of correct replies",
                type=ArrowType.FLOAT64,
            )
            for name, what in (
                ("p50", "median"),
                ("p95", "95th percentile"),
                ("p99", "99th percentile"),
            )
        ),
    ),
)

SERVERS: Final = Table(
    name="servers",
    meaning="one row for each sandbox that served load: what its server counted meanwhile",
    columns=(
        _whole("sandbox", "", "id of the sandbox", type=ArrowType.UTF8),
        _whole("servers_count", "count", "servers in it"),
        _whole("requests_count", "count", "requests that were read whole"),
        _whole("replies_count", "count", "replies that were made, refusals included"),
        _whole("bad_requests_count", "count", "requests that were no requests, and were refused"),
        _maybe("unknown_requests_count", "count", "requests for what the server does not have"),
        _maybe("cpu_ns", "ns", "CPU time charged to the sandbox's cgroup"),
        _maybe("service_ns_p50", "ns", "median service time since its start, guest's clock"),
        _maybe("service_ns_p99", "ns", "99th percentile of it"),
        _maybe("queue_ns_p50", "ns", "median wait in the server since its start, guest's clock"),
        _maybe("queue_ns_p99", "ns", "99th percentile of it"),
    ),
)

INTERVALS: Final = Table(
    name="intervals",
    meaning="one row for each agent and stretch of time, of all phases; all agents begin together",
    columns=(
        _maybe("agent", "", "the agent; null: the only one", type=ArrowType.UTF8),
        _whole("position", "", "number from the begin of the measure phase, below 0 in warm-up"),
        _whole("started_at_ns", INSTANT, "it began"),
        _whole("ended_at_ns", INSTANT, "it ended"),
        _whole("intended_count", "count", "requests that were due in it"),
        _whole("sent_count", "count", "requests that were sent in it"),
        _whole("ok_count", "count", "correct replies that came in it"),
        _whole("failed_count", "count", "requests that failed in it"),
        _whole("sent_bytes", "bytes", "bytes that the kernel took in it"),
        _whole("received_bytes", "bytes", "bytes that were read in it"),
        _maybe("response_ns_p50", "ns", "median response time of them", type=ArrowType.FLOAT64),
        _maybe("response_ns_p99", "ns", "its 99th percentile", type=ArrowType.FLOAT64),
    ),
)

FAILURES: Final = Table(
    name="failures",
    meaning="one row for each agent and reason why requests failed, the 64 most frequent",
    columns=(
        _whole("agent", "", "the agent", type=ArrowType.UTF8),
        _whole("outcome", "", "how the requests ended", type=ArrowType.UTF8),
        _whole("reason", "", "why, in words", type=ArrowType.UTF8),
        _whole("requests_count", "count", "how many of them, in all phases"),
    ),
)


# An instant of another tool, which is on no clock of ours: only differences may be used.
FOREIGN_INSTANT: Final = "ns since 1970 of the measured host's wall clock"

RUND_STARTS: Final = Table(
    name="rund_starts",
    meaning="one row for each start in RunD's logs, as its client saw it",
    columns=(
        _whole("id", "", "id of the pod", type=ArrowType.UTF8),
        _whole("round", "", "the batch it belonged to, from 0, found from the times"),
        _whole("client", "", "number of the client, from 1"),
        _whole("began_at_ns", FOREIGN_INSTANT, "the client began; whole milliseconds"),
        _whole("ready_at_ns", FOREIGN_INSTANT, "the client saw it ready; whole milliseconds"),
    ),
)

RUND_CPU: Final = Table(
    name="rund_cpu",
    meaning="one row for each batch in RunD's logs: CPU time of the whole host meanwhile",
    columns=(
        _whole("round", "", "the batch, from 0"),
        _whole("busy_ticks", "ticks", "neither idle nor waiting for a disk"),
        _whole("total_ticks", "ticks", "of all processors together, steal left out"),
        _whole("user_hz", "1/s", "ticks in a second"),
    ),
)

RUND_PROCESSES: Final = Table(
    name="rund_processes",
    meaning="one row for each process in a table of smem",
    columns=(
        _whole("name", "", "name of the process", type=ArrowType.UTF8),
        _whole("uss_bytes", "bytes", "memory that only it maps"),
        _whole("pss_bytes", "bytes", "its share of what it maps"),
        _whole("rss_bytes", "bytes", "all that it has in memory"),
        _whole("vss_bytes", "bytes", "all that it maps"),
    ),
)

_ALL: Final = (
    STARTS,
    BATCHES,
    BOOKS,
    BACKGROUND,
    REQUESTS,
    LOADS,
    INTERVALS,
    TARGETS,
    SERVERS,
    FAILURES,
    MEMORY,
    IDLE,
    ROLES,
    LIMITS,
    FILL,
    PROBES,
    ATTEMPTS,
    READINGS,
    SAMPLES,
    WINDOWS,
    SENTINEL,
    RUND_STARTS,
    RUND_CPU,
    RUND_PROCESSES,
)

TABLES: Final[Mapping[str, Table]] = MappingProxyType({table.name: table for table in _ALL})
