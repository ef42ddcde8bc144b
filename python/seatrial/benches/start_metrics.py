"""The numbers of the bench ``start``; METHODOLOGY 3 defines each."""

from __future__ import annotations

from typing import Final

from seatrial.model.metric import Direction, Metric


def _latency(name: str, meaning: str, method: str) -> Metric:
    return Metric(name=name, unit="ns", direction=Direction.LOWER, meaning=meaning, method=method)


_PHASES: Final = (
    _latency(
        "start_first_byte_ns",
        "From the release of the batch to the first byte that the sandbox's process sent",
        "first_byte_at - due_at, each start",
    ),
    _latency(
        "start_created_ns",
        "From the release of the batch to the runtime's command having been executed",
        "accepted_at - due_at, each start",
    ),
    _latency(
        "start_pod_ns",
        "From the release of the batch to the server's answer that the pod is there",
        "pod_at - due_at, each start of a pod",
    ),
    _latency(
        "start_container_created_ns",
        "From the release of the batch to the server's answer that the container was created",
        "container_created_at - due_at, each start of a pod",
    ),
    _latency(
        "start_container_started_ns",
        "From the release of the batch to the server's answer that the container was started",
        "container_started_at - due_at, each start of a pod; its guest may be up before",
    ),
    _latency(
        "start_first_instruction_ns",
        "From the release of the batch to the guest's first own instruction",
        "first_byte_at - due_at - (hello - first instruction, both by the guest's clock), each "
        "start; late by the way of the byte to the launcher",
    ),
    _latency(
        "start_ready_ns",
        "From the release of the batch to the guest's word that it is ready",
        "ready_at - due_at, each start",
    ),
    _latency(
        "start_first_reply_ns",
        "From the release of the batch to the first answer to a ping",
        "first_reply_at - due_at, each start",
    ),
    _latency(
        "start_launch_lag_ns",
        "How late the launcher itself was: from the release to just before clone",
        "invoked_at - due_at, each start",
    ),
)

_BATCHES: Final = (
    _latency(
        "start_makespan_ns",
        "From the release of a batch to the last first byte in it",
        "max(first_byte_at) - released_at, each batch whose starts all succeeded",
    ),
    Metric(
        name="start_rps",
        unit="1/s",
        direction=Direction.HIGHER,
        meaning="Starts per second while a batch came up",
        method="starts in a batch / start_makespan_ns, each batch whose starts all succeeded",
    ),
    _latency(
        "start_release_skew_ns",
        "How far apart the starts of one batch were invoked",
        "max(invoked_at) - min(invoked_at), each batch",
    ),
    Metric(
        name="start_amplification_ratio",
        unit="times",
        direction=Direction.LOWER,
        meaning="How many times as long a batch takes beside so many other sandboxes",
        method="start_makespan_ns / start_makespan_ns with the fewest others, medians, by blocks",
    ),
)

_CPU: Final = (
    _latency(
        "start_cpu_ns",
        "CPU time of one start, runtime and payload, user and system",
        "CPU books of the sandbox's own outer cgroup when the batch has answered",
    ),
    _latency(
        "start_cpu_user_ns",
        "The user part of start_cpu_ns",
        "as start_cpu_ns; the kernel splits by tick sampling, so single values are coarse",
    ),
    _latency(
        "start_cpu_system_ns",
        "The system part of start_cpu_ns",
        "as start_cpu_ns; the kernel splits by tick sampling, so single values are coarse",
    ),
    _latency(
        "start_tree_cpu_ns",
        "CPU time of the started process and of all that it waited for, until its end",
        "user_ns + system_ns as the kernel told the launcher; misses daemons and detached helpers",
    ),
    _latency(
        "start_daemon_cpu_ns",
        "CPU time that what serves all sandboxes used for one start; not part of start_cpu_ns",
        "(its books over a batch - its rate in the control window x length) / starts in it",
    ),
    _latency(
        "start_tool_cpu_ns",
        "CPU time that Seatrial used for one start; not part of start_cpu_ns",
        "this process and its launchers over a batch / starts in it",
    ),
    _latency(
        "start_launcher_cpu_ns",
        "CPU time the launcher itself used for one start; part of start_tool_cpu_ns",
        "RUSAGE_SELF of the launcher over a batch / starts in it",
    ),
    _latency(
        "start_host_cpu_ns",
        "CPU time of the whole host for one start, whoever used it, less what idling used",
        "(busy time of /proc/stat over a batch - its rate in the control window x length) / starts "
        "in it; ticks",
    ),
    _latency(
        "start_unbooked_cpu_ns",
        "The part of start_host_cpu_ns in nobody's books: kernel threads, other users of the host",
        "start_host_cpu_ns - (sandboxes, daemon and tool) / starts in it; ticks, so it may be "
        "negative",
    ),
)

_TEARDOWN: Final = (
    _latency(
        "stop_exit_ns",
        "From the stop request to the exit of the process that was started",
        "exit_seen_at - stop_requested_at, each sandbox that obeyed",
    ),
    _latency(
        "teardown_ns",
        "Delete latency: from the stop request until no process, cgroup, state file or mount of a "
        "sandbox is left",
        "gone_at - stop_requested_at, each sandbox that obeyed; all of a batch are stopped at once",
    ),
    _latency(
        "teardown_makespan_ns",
        "From the first stop request of a batch until nothing of any of its sandboxes is left",
        "max(gone_at) - min(stop_requested_at), each batch that obeyed",
    ),
)

_OTHERS: Final = (
    Metric(
        name="start_success_ratio",
        unit="ratio",
        direction=Direction.HIGHER,
        meaning="Share of starts that reached their first reply before the deadline",
        method="1 for a success, 0 for a failure, each start",
    ),
    Metric(
        name="image_resident_ratio",
        unit="ratio",
        direction=Direction.NONE,
        meaning="Share of the files that a start reads which was in the page cache just before",
        method="pages by mincore, each batch",
    ),
    Metric(
        name="background_cpu_ratio",
        unit="ratio",
        direction=Direction.LOWER,
        meaning="CPU that all sandboxes beside the measured ones used together, in processors",
        method="their cgroups' CPU time over the control window / its length",
    ),
    Metric(
        name="background_memory_bytes",
        unit="bytes",
        direction=Direction.LOWER,
        meaning="Memory of all sandboxes beside the measured ones together",
        method="sum of PSS over all their processes, before the first round",
    ),
)

METRICS: Final = (*_PHASES, *_BATCHES, *_CPU, *_TEARDOWN, *_OTHERS)
