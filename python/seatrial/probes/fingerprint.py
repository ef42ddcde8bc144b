"""The machine as it was when the numbers were taken: facts only, each from a named source."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.model.fingerprint import Fingerprint

if TYPE_CHECKING:
    from seatrial.model.scalar import Scalar

CPU = Path("/sys/devices/system/cpu")


def read_fingerprint(state_dir: Path = Path("/run")) -> Fingerprint:
    """Returns facts about this host; a fact that cannot be read is ``None``, never a guess."""
    cpu, memory = _cpu_facts(), _memory_bytes()
    facts: dict[str, Scalar | None] = {
        "machine": platform.machine(),
        "cpu_model": cpu.get("model name"),
        "microcode": cpu.get("microcode"),
        "processors_count": os.cpu_count(),
        "processors_usable_count": len(os.sched_getaffinity(0)),
        "governor": _text(CPU / "cpu0/cpufreq/scaling_governor"),
        "smt": _flag(_text(CPU / "smt/active")),
        "turbo": _turbo(),
        "memory_bytes": memory.get("MemTotal"),
        "swap_bytes": memory.get("SwapTotal"),
        "kernel": platform.release(),
        "kernel_command_line": _text(Path("/proc/cmdline")),
        "distribution": _os_release(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "hypervisor": _hypervisor(cpu.get("flags", "")),
        "clocksource": _text(
            Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        ),
        "cgroup_mode": _cgroup_mode(),
        "transparent_hugepage": _chosen(_text(Path("/sys/kernel/mm/transparent_hugepage/enabled"))),
        "ksm": _flag(_text(Path("/sys/kernel/mm/ksm/run"))),
        "mitigations": "; ".join(f"{k}: {v}" for k, v in _mitigations().items()) or None,
        "python": platform.python_version(),
        "is_root": os.geteuid() == 0,
        "state_filesystem": _filesystem(state_dir),
    }
    return Fingerprint(facts=facts)


def has_cpu_virtualisation() -> bool:
    """Returns whether the processor says it can run guests (vmx or svm)."""
    flags = _cpu_facts().get("flags", "").split()
    return "vmx" in flags or "svm" in flags


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _flag(text: str | None) -> bool | None:
    return None if text is None else text not in {"0", "N", "n"}


def _chosen(text: str | None) -> str | None:
    """Returns the bracketed word of a kernel choice such as ``always [madvise] never``."""
    if text is None or "[" not in text:
        return text
    return text.partition("[")[2].partition("]")[0]


def _turbo() -> bool | None:
    no_turbo = _flag(_text(CPU / "intel_pstate/no_turbo"))
    return (not no_turbo) if no_turbo is not None else _flag(_text(CPU / "cpufreq/boost"))


def _os_release() -> str | None:
    for line in (_text(Path("/etc/os-release")) or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return None


def _cpu_facts() -> dict[str, str]:
    """Returns the fields of the first processor in /proc/cpuinfo."""
    found: dict[str, str] = {}
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found


def _memory_bytes() -> dict[str, int]:
    sizes: dict[str, int] = {}
    for line in (_text(Path("/proc/meminfo")) or "").splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if words:
            sizes[key] = int(words[0]) * 1024
    return sizes


def _mounts() -> list[list[str]]:
    return [line.split() for line in (_text(Path("/proc/mounts")) or "").splitlines()]


def _cgroup_mode() -> str | None:
    """Returns v1, v2 or hybrid, from what is mounted (cgroups(7)); None without any."""
    kinds = frozenset(words[2] for words in _mounts()) & {"cgroup", "cgroup2"}
    modes = {
        frozenset({"cgroup"}): "v1",
        frozenset({"cgroup2"}): "v2",
        frozenset({"cgroup", "cgroup2"}): "hybrid",
    }
    return modes.get(kinds)


def _hypervisor(cpu_flags: str) -> str | None:
    named = _text(Path("/sys/hypervisor/type")) or _text(Path("/sys/class/dmi/id/sys_vendor"))
    if "hypervisor" in cpu_flags.split():
        return named or "unnamed"
    return "none" if cpu_flags else None


def _mitigations() -> dict[str, str]:
    directory = CPU / "vulnerabilities"
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except OSError:
        return {}
    return {name: _text(directory / name) or "" for name in names}


def _filesystem(path: Path) -> str | None:
    """Returns the type of the file system that holds ``path``."""
    resolved = path.resolve()
    best: tuple[int, str] | None = None
    for words in _mounts():
        mount_point = Path(words[1])
        if resolved.is_relative_to(mount_point):
            depth = len(mount_point.parts)
            if best is None or depth >= best[0]:
                best = (depth, words[2])
    return None if best is None else best[1]
