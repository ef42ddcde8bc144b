"""The tables of the bench ``inside``."""

from typing import Final

from seatrial.model.table import ArrowType, Table, maybe, whole

PROBES: Final = Table(
    name="probes",
    meaning="one row for each timed batch of a probe inside the sandbox",
    columns=(
        whole("probe", "", "name of the probe", type=ArrowType.UTF8),
        whole("position", "", "its place among the probe's batches, from 0"),
        whole("batch_ns", "ns", "length of the batch on the guest's monotonic clock"),
        maybe("operations_count", "count", "operations in the batch"),
        maybe("batch_bytes", "bytes", "bytes moved in the batch"),
        maybe("is_first", "", "first touch, never a sample", type=ArrowType.BOOL),
    ),
)

ATTEMPTS: Final = Table(
    name="attempts",
    meaning="one row for each try of a piece of work inside the sandbox",
    columns=(
        whole("work", "", "what was tried", type=ArrowType.UTF8),
        whole("position", "", "its place among the tries; 0 is first touch, never a sample"),
        whole("outcome", "", "ok, failed, timed-out, unsupported or skipped", type=ArrowType.UTF8),
        maybe("reason", "", "why there is no number", type=ArrowType.UTF8),
        maybe("command", "", "the command line", type=ArrowType.UTF8),
        maybe("exit_code", "", "exit code of the command", type=ArrowType.INT32),
        maybe("elapsed_ns", "ns", "from its fork to its exit seen, on the guest's clock"),
        maybe("host_elapsed_ns", "ns", "from asking the guest to its answer, on the host's clock"),
        maybe("user_ns", "ns", "user CPU time by the guest's kernel; hello: of the client"),
        maybe("system_ns", "ns", "system CPU time by the guest's kernel; hello: of the client"),
        maybe("cgroup_cpu_ns", "ns", "CPU time charged to the sandbox's cgroup meanwhile"),
        maybe("cgroup_user_ns", "ns", "its part in user mode"),
        maybe("cgroup_system_ns", "ns", "its part in system mode"),
        maybe("is_direct", "", "it asked to pass the caches by", type=ArrowType.BOOL),
        maybe("read_bytes", "bytes", "read, as the tool says"),
        maybe("written_bytes", "bytes", "written, as the tool says"),
        maybe("device_read_bytes", "bytes", "read from the host's device meanwhile, by anybody"),
        maybe("device_written_bytes", "bytes", "written to the host's device meanwhile"),
        maybe("device", "", "that device", type=ArrowType.UTF8),
        maybe("filesystem", "", "type of the file system on it", type=ArrowType.UTF8),
        maybe("route", "", "what connected sandbox and host", type=ArrowType.UTF8),
    ),
)

READINGS: Final = Table(
    name="readings",
    meaning="one row for each number that a try gave",
    columns=(
        whole("work", "", "what was tried", type=ArrowType.UTF8),
        whole("position", "", "which try"),
        whole("metric", "", "name in the metric registry", type=ArrowType.UTF8),
        whole("value", "unit of the metric", "the number", type=ArrowType.FLOAT64),
    ),
)
