"""Options that the kernel was built with: which of those that sandboxes need, and for what.

That an option is set does not prove that the thing works, and that it is not set decides: the
groups ``isolation``, ``network`` and ``storage`` try the things themselves.
"""

from __future__ import annotations

import gzip
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group, Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from seatrial.doctor.tree import Tree

SAY: Final = About(Group.KERNEL)
#: What a kernel's build system writes for "in the kernel" and "as a module".
BUILT_IN: Final = "y"
MODULE: Final = "m"


@dataclass(frozen=True, slots=True)
class Option:
    """One option, without its prefix, and what it is for; alternatives have bars between them."""

    name: str
    purpose: str
    is_needed: bool = True
    """False: only some runtimes or benches want it."""


OPTIONS: Final = (
    # What every container runtime stands on.
    Option("NAMESPACES", "all namespaces"),
    Option("UTS_NS", "host names of sandboxes"),
    Option("IPC_NS", "shared memory of sandboxes"),
    Option("PID_NS", "process ids of sandboxes"),
    Option("NET_NS", "networks of sandboxes"),
    Option("USER_NS", "sandboxes without root"),
    Option("TIME_NS", "clocks of sandboxes", is_needed=False),
    Option("CGROUPS", "all control groups"),
    Option("CGROUP_CPUACCT|CGROUP_SCHED", "CPU time of each sandbox"),
    Option("CGROUP_SCHED", "CPU weight of a sandbox"),
    Option("CFS_BANDWIDTH", "CPU limits"),
    Option("MEMCG", "memory of each sandbox, and memory limits"),
    Option("CGROUP_PIDS", "limits on processes"),
    Option("CGROUP_FREEZER", "stopping all of a sandbox at once"),
    Option("CGROUP_DEVICE", "devices that a container may use (cgroup v1)"),
    Option("CGROUP_BPF", "devices that a container may use (cgroup v2)"),
    Option("BPF_SYSCALL", "device filters of cgroup v2"),
    Option("CPUSETS", "processors of a sandbox"),
    Option("BLK_CGROUP", "disk weight of a sandbox", is_needed=False),
    Option("CGROUP_HUGETLB", "huge pages of a sandbox", is_needed=False),
    Option("CGROUP_PERF", "perf of one sandbox", is_needed=False),
    Option("SECCOMP", "system call filters; gVisor's systrap"),
    Option("SECCOMP_FILTER", "system call filters; gVisor's systrap"),
    Option("KEYS", "the key ring of each container"),
    Option("POSIX_MQUEUE", "message queues, which runc mounts in each container"),
    Option("DEVPTS_FS|UNIX98_PTYS", "terminals in containers"),
    Option("TMPFS", "what runtimes mount in each container"),
    Option("OVERLAY_FS", "images in layers: snapshotter overlayfs"),
    Option("MEMFD_CREATE", "runc's copy of itself; memory of gVisor"),
    Option("CHECKPOINT_RESTORE", "checkpoints (CRIU)", is_needed=False),
    Option("USERFAULTFD", "snapshots of microVMs restored page by page", is_needed=False),
    # Networks of sandboxes.
    Option("VETH", "networks of sandboxes: the load benches"),
    Option("BRIDGE", "networks of podman and CNI", is_needed=False),
    Option("BRIDGE_NETFILTER", "network policies of CNI", is_needed=False),
    Option("NF_NAT|NF_TABLES", "ports and addresses of podman and CNI", is_needed=False),
    Option("NETFILTER_XT_MATCH_ADDRTYPE", "docker's rules", is_needed=False),
    Option("NETFILTER_XT_MATCH_CONNTRACK", "docker's rules", is_needed=False),
    Option("NETFILTER_XT_TARGET_MASQUERADE|IP_NF_TARGET_MASQUERADE|NFT_MASQ",
           "ways out of podman and CNI", is_needed=False),
    Option("TUN", "taps of microVMs"),
    Option("VSOCKETS", "channels to microVMs", is_needed=False),
    Option("VHOST_VSOCK", "channels to microVMs: Kata and Firecracker", is_needed=False),
    Option("VHOST_NET", "fast networks of microVMs", is_needed=False),
    Option("NETWORK_PHY_TIMESTAMPING|PTP_1588_CLOCK_OPTIONAL|PTP_1588_CLOCK",
           "time stamps by network devices", is_needed=False),
    # Disks and images.
    Option("BLK_DEV_LOOP", "images as files"),
    Option("BLK_DEV_DM", "device mapper: snapshotter devmapper", is_needed=False),
    Option("DM_THIN_PROVISIONING", "thin pools: snapshotter devmapper, Kata with Firecracker",
           is_needed=False),
    Option("EROFS_FS", "snapshotter erofs", is_needed=False),
    Option("EXT4_FS", "disks of microVMs"),
    Option("FUSE_FS", "fuse-overlayfs, virtiofs", is_needed=False),
    Option("VIRTIO_FS", "shared directories, where this machine is a guest", is_needed=False),
    Option("IO_URING", "fio's engine io_uring", is_needed=False),
    Option("AIO", "fio's engine libaio", is_needed=False),
    # Virtual machines, and what measuring wants.
    Option("KVM", "microVMs and gVisor's kvm platform", is_needed=False),
    Option("KVM_INTEL|KVM_AMD|KVM_PVM|ARM64", "the processor's half of KVM", is_needed=False),
    Option("PSI", "waiting for processor, memory and disk, told from work", is_needed=False),
    Option("TASKSTATS", "delays of a process", is_needed=False),
    Option("HIGH_RES_TIMERS", "waits shorter than a tick"),
    Option("PROC_PAGE_MONITOR", "memory in shares (PSS) and not only in full (RSS)"),
    Option("DEBUG_FS", "some counters of the kernel", is_needed=False),
)  # fmt: skip


def parse_config(text: str) -> dict[str, str]:
    """Read a kernel configuration: ``CONFIG_X=y`` lines, without their prefix; pure."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and key.startswith("CONFIG_"):
            found[key.removeprefix("CONFIG_")] = value
    return found


def read_config(tree: Tree, *, release: str) -> tuple[str, dict[str, str]] | None:
    """Find the running kernel's configuration; None: it is nowhere."""
    packed = tree.path("proc/config.gz")
    try:
        return "/proc/config.gz", parse_config(gzip.decompress(packed.read_bytes()).decode())
    except (OSError, EOFError, ValueError):
        pass  # a kernel without CONFIG_IKCONFIG_PROC; distributions put it elsewhere
    for name in (
        f"boot/config-{release}",
        f"usr/lib/modules/{release}/config",
        f"lib/modules/{release}/config",
        f"lib/modules/{release}/build/.config",
    ):
        text = tree.text(name)
        if text:
            return f"/{name}", parse_config(text)
    return None


def check_kernel(tree: Tree, *, release: str | None = None) -> Iterator[Check]:
    """Look at the options; one check each."""
    running = release or platform.release()
    config = read_config(tree, release=running)
    if config is None:
        yield SAY.untried(
            "configuration",
            f"neither /proc/config.gz nor /boot/config-{running} can be read",
            fix="modprobe configs, or install the kernel package's configuration; "
            "what matters is tried by the other checks all the same",
        )
        return
    where, options = config
    yield SAY.ok("configuration", f"{where}, kernel {running}")
    for option in OPTIONS:
        yield judge(option, options)


def judge(option: Option, options: Mapping[str, str]) -> Check:
    """Judge one option; pure."""
    found = {name: options.get(name, "n") for name in option.name.split("|")}
    values = {"options": found}
    for name, value in found.items():
        if value in {BUILT_IN, MODULE}:
            how = "built in" if value == BUILT_IN else "a module, loaded on use"
            return SAY.ok(name, f"{how}: {option.purpose}", values=values)
    names = " or ".join(f"CONFIG_{name}" for name in found)
    level = Level.MISSING if option.is_needed else Level.WARN
    return SAY.bad(
        level,
        option.name.partition("|")[0],
        "not in this kernel",
        so=f"without: {option.purpose}",
        fix=f"boot a kernel with {names}",
        values=values,
    )
