"""What this machine can measure: each check gives its evidence, the consequence and the fix."""

from __future__ import annotations

import os
import resource
import shutil
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.probes.fingerprint import has_cpu_virtualisation, read_fingerprint
from seatrial.probes.noise import read_host_cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BUSY_RATIO_MAX = 0.10
STEAL_RATIO_MAX = 0.02
OPEN_FILES_MIN = 4096
FREE_BYTES_MIN = 1 << 30
LOOK_NS = 500_000_000
NS_PER_S = 1_000_000_000


class Verdict(StrEnum):
    """How a check ended."""

    GOOD = "good"
    DEGRADED = "degraded"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One fact about the host and what follows from it."""

    name: str
    verdict: Verdict
    evidence: str
    consequence: str = ""
    fix: str = ""


def check_host(run_dir: Path) -> tuple[Check, ...]:
    """Runs every check; takes about half a second, for the look at the processors."""
    checks: Sequence[Callable[[], Check]] = (
        _check_processors,
        _check_user,
        _check_cgroups,
        _check_network,
        _check_open_files,
        _check_governor,
        _check_swap,
        _check_kvm,
        lambda: _check_disk(run_dir),
        _check_tools,
    )
    return tuple(check() for check in checks)


def _check_processors() -> Check:
    before = read_host_cpu()
    own_before_ns = time.process_time_ns()
    time.sleep(LOOK_NS / NS_PER_S)
    after = read_host_cpu()
    own_ns = time.process_time_ns() - own_before_ns
    capacity_ns = (after.at_ns - before.at_ns) * after.processors_count
    busy_ratio = max(after.busy_ns - before.busy_ns - own_ns, 0) / capacity_ns
    steal_ratio = (after.steal_ns - before.steal_ns) / capacity_ns
    evidence = (
        f"{after.processors_count} processors, {busy_ratio:.0%} busy with other work, "
        f"{steal_ratio:.0%} stolen by the hypervisor"
    )
    if busy_ratio <= BUSY_RATIO_MAX and steal_ratio <= STEAL_RATIO_MAX:
        return Check(name="processors", verdict=Verdict.GOOD, evidence=evidence)
    return Check(
        name="processors",
        verdict=Verdict.DEGRADED,
        evidence=evidence,
        consequence="times scatter more; windows above the limit are marked noisy-host",
        fix="stop other work, or take ratios and more blocks instead of absolute times",
    )


def _check_user() -> Check:
    if os.geteuid() == 0:
        return Check(name="user", verdict=Verdict.GOOD, evidence="root")
    return Check(
        name="user",
        verdict=Verdict.DEGRADED,
        evidence=f"user id {os.geteuid()}",
        consequence="no veth, no cgroup books; only rootless runtimes can run",
        fix="run as root for the full set",
    )


def _check_cgroups() -> Check:
    mode = read_fingerprint().facts["cgroup_mode"]
    if mode is None:
        return Check(
            name="cgroups",
            verdict=Verdict.BAD,
            evidence="no cgroup file system is mounted",
            consequence="no CPU and memory books; OCI runtimes will not start",
            fix="mount cgroup2 at /sys/fs/cgroup",
        )
    roots = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpuacct")]
    if any(os.access(root, os.W_OK) for root in roots):
        return Check(name="cgroups", verdict=Verdict.GOOD, evidence=f"{mode}, writable")
    return Check(
        name="cgroups",
        verdict=Verdict.DEGRADED,
        evidence=f"{mode}, not writable",
        consequence="CPU and memory of a sandbox cannot be charged to it",
        fix="run as root, or have a subtree delegated to this user",
    )


def _check_network() -> Check:
    if os.geteuid() != 0:
        return Check(
            name="network namespaces",
            verdict=Verdict.DEGRADED,
            evidence="not root",
            consequence="the load bench needs a veth pair and cannot run",
            fix="run as root",
        )
    if Path("/proc/self/ns/net").exists():
        return Check(name="network namespaces", verdict=Verdict.GOOD, evidence="available")
    return Check(
        name="network namespaces",
        verdict=Verdict.BAD,
        evidence="/proc/self/ns/net is missing",
        consequence="sandboxes cannot get a network of their own",
        fix="use a kernel with CONFIG_NET_NS",
    )


def _check_open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    evidence = f"soft {soft}, hard {hard}"
    if hard >= OPEN_FILES_MIN:
        return Check(name="open files", verdict=Verdict.GOOD, evidence=evidence)
    return Check(
        name="open files",
        verdict=Verdict.DEGRADED,
        evidence=evidence,
        consequence="storms of more than a few hundred starts will fail",
        fix=f"raise the hard limit to {OPEN_FILES_MIN} or more (ulimit -Hn)",
    )


def _check_governor() -> Check:
    governor = read_fingerprint().facts["governor"]
    if governor in {None, "performance"}:
        evidence = "performance" if governor else "not visible here (a virtual machine?)"
        return Check(name="frequency governor", verdict=Verdict.GOOD, evidence=evidence)
    return Check(
        name="frequency governor",
        verdict=Verdict.DEGRADED,
        evidence=str(governor),
        consequence="the clock frequency follows the load, so short work looks slower",
        fix="cpupower frequency-set -g performance",
    )


def _check_swap() -> Check:
    swap_bytes = read_fingerprint().facts["swap_bytes"]
    if not swap_bytes:
        return Check(name="swap", verdict=Verdict.GOOD, evidence="none")
    return Check(
        name="swap",
        verdict=Verdict.DEGRADED,
        evidence=f"{int(swap_bytes) >> 20} MiB",
        consequence="at high density memory may be swapped out and look cheaper than it is",
        fix="swapoff -a for the run",
    )


def _check_kvm() -> Check:
    device = Path("/dev/kvm")
    if not device.exists():
        return Check(
            name="kvm",
            verdict=Verdict.DEGRADED,
            evidence="/dev/kvm is missing",
            consequence="no microVMs and no kvm platform of gVisor",
            fix="use a machine with hardware virtualisation",
        )
    if has_cpu_virtualisation():
        return Check(name="kvm", verdict=Verdict.GOOD, evidence="/dev/kvm and vmx or svm")
    return Check(
        name="kvm",
        verdict=Verdict.DEGRADED,
        evidence="/dev/kvm is there, but the processor shows neither vmx nor svm",
        consequence="a guest may hang; only a real start proves it, see the drivers below",
        fix="use a machine with (nested) hardware virtualisation",
    )


def _check_disk(run_dir: Path) -> Check:
    existing = next(path for path in (run_dir, *run_dir.resolve().parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    evidence = f"{free_bytes >> 20} MiB free for runs"
    if free_bytes >= FREE_BYTES_MIN:
        return Check(name="disk", verdict=Verdict.GOOD, evidence=evidence)
    return Check(
        name="disk",
        verdict=Verdict.DEGRADED,
        evidence=evidence,
        consequence="a long load run may fill it; finished trials are kept, the run stops",
        fix="free some space or choose another place with --out",
    )


def _check_tools() -> Check:
    wanted = ("fio", "iperf3")
    missing = [name for name in wanted if shutil.which(name) is None]
    if not missing:
        return Check(name="tools", verdict=Verdict.GOOD, evidence=", ".join(wanted))
    return Check(
        name="tools",
        verdict=Verdict.DEGRADED,
        evidence=f"missing: {', '.join(missing)}",
        consequence="their numbers cannot be set beside the built-in probes",
        fix=f"apt-get install {' '.join(missing)}",
    )
