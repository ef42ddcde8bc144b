"""The tables of starts, live sandboxes and the sentinel; ``columns`` has the contract."""

from typing import Final

from seatrial.model.table import GUEST_INSTANT, INSTANT, ArrowType, Table, maybe, whole

STARTS: Final = Table(
    name="starts",
    meaning="one row for each sandbox that was asked to start",
    columns=(
        whole("id", "", "the sandbox's id within the trial", type=ArrowType.UTF8),
        whole("round", "", "the batch it belonged to, from 0", type=ArrowType.INT32),
        whole("position", "", "its place within the batch, from 0", type=ArrowType.INT32),
        whole("is_floor", "", "a null runtime, started for comparison", type=ArrowType.BOOL),
        maybe("pid", "", "process id of the direct child", type=ArrowType.INT64),
        whole(
            "outcome",
            "",
            "ok, spawn-failed, exited-early, timed-out or protocol-error",
            type=ArrowType.UTF8,
        ),
        whole("censored", "", "cut off by its deadline", type=ArrowType.BOOL),
        maybe("error", "", "what went wrong, in words", type=ArrowType.UTF8),
        maybe("exit_code", "", "exit code of the direct child", type=ArrowType.INT32),
        maybe("signal", "", "signal that ended the direct child", type=ArrowType.INT32),
        maybe("stderr_tail", "", "the last of what it wrote to stderr", type=ArrowType.UTF8),
        maybe("due_at_ns", INSTANT, "the batch was released"),
        maybe("invoked_at_ns", INSTANT, "just before the child was cloned"),
        maybe("accepted_at_ns", INSTANT, "clone and exec had returned"),
        maybe("pod_at_ns", INSTANT, "of a pod: RunPodSandbox was answered"),
        maybe("container_created_at_ns", INSTANT, "of a pod: CreateContainer was answered"),
        maybe("container_started_at_ns", INSTANT, "of a pod: StartContainer was answered"),
        maybe("first_byte_at_ns", INSTANT, "the guest's HELLO was seen"),
        maybe("ready_at_ns", INSTANT, "the guest's READY was seen"),
        maybe("ping_sent_at_ns", INSTANT, "a PING was sent"),
        maybe("first_reply_at_ns", INSTANT, "the guest's first PONG was seen"),
        maybe("stop_requested_at_ns", INSTANT, "it was asked to stop"),
        maybe("exit_seen_at_ns", INSTANT, "the direct child's end was seen"),
        maybe("stop_error", "", "why it did not end by the request", type=ArrowType.UTF8),
        maybe("gone_at_ns", INSTANT, "nothing of it was left"),
        maybe("guest_first_instruction_mono_ns", GUEST_INSTANT, "first statement of main"),
        maybe("guest_hello_mono_ns", GUEST_INSTANT, "just before HELLO was written"),
        maybe("guest_ready_mono_ns", GUEST_INSTANT, "just before READY was written"),
        maybe("user_ns", "ns", "user CPU time of the direct child and what it reaped"),
        maybe("system_ns", "ns", "system CPU time of the direct child and what it reaped"),
        maybe("max_rss_bytes", "bytes", "peak resident memory of the direct child"),
        maybe("cgroup_user_ns", "ns", "user CPU time charged to the sandbox's cgroup"),
        maybe("cgroup_system_ns", "ns", "system CPU time charged to the sandbox's cgroup"),
        maybe("cgroup_cpu_ns", "ns", "all CPU time charged to the sandbox's cgroup"),
    ),
)

BATCHES: Final = Table(
    name="batches",
    meaning="one row for each batch of sandboxes that was released by one barrier",
    columns=(
        whole("round", "", "number of the batch, from 0", type=ArrowType.INT32),
        whole("released_at_ns", INSTANT, "the barrier opened"),
        maybe("launcher_user_ns", "ns", "the launcher's own user CPU time during the batch"),
        maybe("launcher_system_ns", "ns", "the launcher's own system CPU time during the batch"),
        whole("is_floor", "", "a batch of null runtimes, for comparison", type=ArrowType.BOOL),
        whole("starts_count", "count", "how many sandboxes were released"),
        maybe(
            "resident_ratio",
            "share of pages",
            "of the files that a start reads, in the page cache just before",
            type=ArrowType.FLOAT64,
        ),
        maybe("background_count", "count", "sandboxes that were to live beside them"),
        maybe("background_alive_count", "count", "those that lived when all had answered"),
    ),
)

BOOKS: Final = Table(
    name="books",
    meaning="one row for each batch and control window: who used the processors in it",
    columns=(
        whole("round", "", "number of the batch; -1: the control window", type=ArrowType.INT32),
        whole("is_floor", "", "a batch of null runtimes", type=ArrowType.BOOL),
        whole("is_control", "", "nothing was started in it", type=ArrowType.BOOL),
        whole("starts_count", "count", "sandboxes that were started in it"),
        whole("started_at_ns", INSTANT, "it began"),
        whole("ended_at_ns", INSTANT, "it ended"),
        maybe("sandboxes_cpu_ns", "ns", "charged to the groups of the sandboxes started in it"),
        maybe("daemon_cpu_ns", "ns", "used by what serves all sandboxes; null: there is none"),
        maybe("background_cpu_ns", "ns", "charged to the sandboxes that live beside them"),
        whole("tool_cpu_ns", "ns", "used by Seatrial: this process and its launchers"),
        whole("host_user_ns", "ns", "user and nice time of the host, in ticks"),
        whole("host_system_ns", "ns", "system, interrupt and softirq time of it, in ticks"),
        whole("steal_ns", "ns", "given to another guest by the hypervisor, in ticks"),
    ),
)

BACKGROUND: Final = Table(
    name="background",
    meaning="one row for each reading of the sandboxes that live beside the measured ones",
    columns=(
        whole("driver", "", "what runs them", type=ArrowType.UTF8),
        whole("count", "count", "how many were asked for"),
        whole("alive_count", "count", "how many lived"),
        whole("started_count", "count", "how many of them were started for this trial"),
        maybe("pss_bytes", "bytes", "proportional set size of all their processes"),
        maybe("cgroup_bytes", "bytes", "charged to all their groups"),
        maybe("processes_count", "count", "all their processes"),
    ),
)

MEMORY: Final = Table(
    name="memory",
    meaning="one row for each reading of the memory that the live sandboxes hold together",
    columns=(
        whole("count", "count", "live sandboxes"),
        whole("is_settled", "", "two readings in a row had agreed", type=ArrowType.BOOL),
        whole("is_final", "", "the reading that counts", type=ArrowType.BOOL),
        whole("since_last_start_ns", "ns", "time since the last sandbox was up"),
        maybe("processes_count", "count", "processes of the sandboxes, runtimes included"),
        maybe("fewest_processes_count", "count", "processes of the sandbox with the fewest"),
        maybe("most_processes_count", "count", "processes of the sandbox with the most"),
        maybe("unreadable_count", "count", "processes whose memory could not be read"),
        maybe("dead_count", "count", "sandboxes without any process"),
        maybe("pss_bytes", "bytes", "proportional set size of those processes"),
        maybe("uss_bytes", "bytes", "memory that only one of them maps"),
        maybe("rss_bytes", "bytes", "resident set size, shared pages counted again and again"),
        maybe("cgroup_bytes", "bytes", "charged to the sandboxes' cgroups"),
        maybe("mem_available_drop_bytes", "bytes", "drop of the host's MemAvailable"),
        maybe("slab_growth_bytes", "bytes", "growth of the kernel's slab memory"),
        maybe("kernel_bytes", "bytes", "kernel memory charged to the sandboxes' cgroups"),
        maybe(
            "kernel_growth_bytes",
            "bytes",
            "growth of the host's unreclaimable slab, stacks, page tables and per-CPU memory",
        ),
        maybe("daemon_pss_bytes", "bytes", "PSS of what serves all sandboxes; null: nothing does"),
        maybe("daemon_processes_count", "count", "its processes"),
    ),
)

IDLE: Final = Table(
    name="idle",
    meaning="one row for each stretch in which the live sandboxes were left alone",
    columns=(
        whole("count", "count", "live sandboxes"),
        whole("window_ns", "ns", "length of the stretch"),
        maybe("cpu_ns", "ns", "CPU time charged to all their cgroups meanwhile"),
        maybe("daemon_cpu_ns", "ns", "CPU time of what serves all sandboxes meanwhile"),
        maybe("switches_count", "count", "context switches of all their threads meanwhile"),
        maybe("pss_growth_bytes", "bytes", "growth of their PSS meanwhile"),
    ),
)

ROLES: Final = Table(
    name="roles",
    meaning="one row for each role of processes: what all live ones of that role hold together",
    columns=(
        whole("role", "", "such as payload, runtime, sentry, gofer", type=ArrowType.UTF8),
        whole("processes_count", "count", "processes of that role whose memory was read"),
        whole("pss_bytes", "bytes", "proportional set size"),
        whole("uss_bytes", "bytes", "memory that only one of them maps"),
        whole("rss_bytes", "bytes", "resident set size"),
    ),
)

LIMITS: Final = Table(
    name="limits",
    meaning="one row: the memory limits of all sandboxes from outside, and one guest's own view",
    columns=(
        whole("count", "count", "live sandboxes"),
        maybe("asked_bytes", "bytes", "the limit that was asked for; null: none"),
        maybe("lowest_bytes", "bytes", "the lowest limit that the kernel enforces"),
        maybe("highest_bytes", "bytes", "the highest limit that the kernel enforces"),
        whole("unlimited_count", "count", "sandboxes for which the kernel enforces none"),
        maybe("guest_total_bytes", "bytes", "memory that the first guest believes to have"),
        maybe("guest_available_bytes", "bytes", "memory that it believes to be available"),
        maybe("host_pss_bytes", "bytes", "PSS of that sandbox's processes on the host"),
    ),
)

FILL: Final = Table(
    name="fill",
    meaning="one row for each step of starting as many sandboxes as fit, and one of those alive",
    columns=(
        whole("count", "count", "sandboxes that came up in time so far"),
        whole("available_bytes", "bytes", "MemAvailable of the host before the step"),
        maybe("slowest_ready_ns", "ns", "release to READY of the slowest of the step"),
        maybe(
            "stopped_by",
            "",
            "the bound that ended it; alive: those that live in the end",
            type=ArrowType.UTF8,
        ),
    ),
)

SENTINEL: Final = Table(
    name="sentinel",
    meaning="one row for each null start taken beside the trial, to see the machine drift",
    columns=(
        whole("position", "", "its place in time within the trial, from 0"),
        maybe("due_at_ns", INSTANT, "it was released"),
        maybe("first_byte_at_ns", INSTANT, "its HELLO was seen; null: it did not start"),
    ),
)
