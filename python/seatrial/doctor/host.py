"""Processors and memory: what makes times and sizes differ from one minute to the next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group
from seatrial.doctor.tree import Tree, chosen
from seatrial.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

SAY: Final = About(Group.HOST)
CPU: Final = "sys/devices/system/cpu"
KIB: Final = 1024
MEMORY_BYTES_MIN: Final = 1 << 30
MEMORY_BYTES_NEEDED: Final = 256 << 20
#: Shares of the last ten seconds in which somebody waited (Documentation/accounting/psi.rst).
PRESSURE_RATIO_MAX: Final = {"cpu": 0.20, "memory": 0.01, "io": 0.10}
PER_CENT: Final = 100


def check_host(tree: Tree, *, usable_count: int | None = None) -> Iterator[Check]:
    """Look at processors and memory, without a wait."""
    yield _processors(tree, usable_count)
    yield _threads(tree)
    yield _governor(tree)
    yield _turbo(tree)
    yield from _pressure(tree)
    yield _memory(tree)
    yield _swap(tree)
    yield _huge_pages(tree)
    yield _merging(tree)
    yield _access_monitor(tree)


def _processors(tree: Tree, usable_count: int | None) -> Check:
    online = count_listed(tree.text(f"{CPU}/online") or "") or os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if usable_count is None else usable_count
    evidence = f"{usable} of {online} processors, {tree.fields('proc/cpuinfo').get('model name')}"
    values = {"online_count": online, "usable_count": usable}
    if usable < online:
        return SAY.warn(
            "processors",
            evidence,
            so="work of others on the rest is counted as noise of the host",
            fix="start Seatrial without taskset or a cpuset",
            values=values,
        )
    if usable == 1:
        return SAY.warn(
            "processors",
            evidence,
            so="whatever measures takes its time from what is measured",
            fix="use a machine with at least two processors",
            values=values,
        )
    return SAY.ok("processors", evidence, values=values)


def count_listed(text: str) -> int:
    """Count the members of a kernel list such as ``0-3,6``; pure; 0: it cannot be read."""
    count = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.strip().isdigit():
            return 0
        count += int(last or first) - int(first) + 1
    return count


def _threads(tree: Tree) -> Check:
    active = tree.text(f"{CPU}/smt/active")
    if active == "1":
        return SAY.warn(
            "hardware threads",
            "two or more threads share a core",
            so="a neighbour on the same core slows work down without showing in any book",
            fix=f"echo off > /{CPU}/smt/control, for the time of a run",
        )
    return SAY.ok("hardware threads", "off" if active == "0" else "not visible here")


def _governor(tree: Tree) -> Check:
    cpus = [name for name in tree.names(CPU) if name[3:].isdigit()]
    found = {tree.text(f"{CPU}/{name}/cpufreq/scaling_governor") for name in cpus} - {None}
    words = ", ".join(sorted(str(one) for one in found))
    if found <= {"performance"}:
        return SAY.ok("frequency governor", words or "not visible here (a virtual machine?)")
    return SAY.warn(
        "frequency governor",
        words,
        so="the clock frequency follows the load, so short work looks slower",
        fix="cpupower frequency-set -g performance",
    )


def _turbo(tree: Tree) -> Check:
    off = tree.text(f"{CPU}/intel_pstate/no_turbo")
    boost = tree.text(f"{CPU}/cpufreq/boost")
    if off is None and boost is None:
        return SAY.ok("turbo", "not visible here")
    if off == "1" or boost == "0":
        return SAY.ok("turbo", "off")
    fix = f"echo 1 > /{CPU}/intel_pstate/no_turbo" if off else f"echo 0 > /{CPU}/cpufreq/boost"
    return SAY.warn(
        "turbo",
        "on",
        so="how fast a core runs depends on how many others work, and on the temperature",
        fix=f"{fix}, for numbers that must repeat",
    )


def parse_pressure(text: str) -> dict[str, float]:
    """Read /proc/pressure/*: the share of ten seconds in which some waited; pure."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key == "avg10":
                found[kind] = float(value) / PER_CENT
    return found


def _pressure(tree: Tree) -> Iterator[Check]:
    if not tree.exists("proc/pressure/cpu"):
        yield SAY.missing(
            "pressure",
            "/proc/pressure is not there",
            so="waiting for processor, memory and disk cannot be told from work",
            fix="boot with psi=1, or a kernel with CONFIG_PSI",
        )
        return
    for resource, limit in PRESSURE_RATIO_MAX.items():
        some = parse_pressure(tree.text(f"proc/pressure/{resource}") or "").get("some", 0.0)
        name = f"{resource} pressure"
        evidence = f"somebody waited during {some:.0%} of the last 10 s"
        if some <= limit:
            yield SAY.ok(name, evidence, values={"some_ratio": some})
        else:
            yield SAY.warn(
                name,
                f"{evidence} (over {limit:.0%})",
                so="times hold waiting that is not the sandbox's",
                fix="stop other work, or wait until it is done",
                values={"some_ratio": some},
            )


def parse_memory(text: str) -> dict[str, int]:
    """Read /proc/meminfo as bytes; pure."""
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            sizes[key] = int(words[0]) * KIB
    return sizes


def _memory(tree: Tree) -> Check:
    sizes = parse_memory(tree.text("proc/meminfo") or "")
    available = sizes.get("MemAvailable", 0)
    total = sizes.get("MemTotal", 0)
    evidence = f"{format_bytes(available)} of {format_bytes(total)} available"
    if available >= MEMORY_BYTES_MIN:
        return SAY.ok("memory", evidence, values={"available_bytes": available})
    say = SAY.warn if available >= MEMORY_BYTES_NEEDED else SAY.broken
    return say(
        "memory",
        evidence,
        so="many sandboxes at once will not fit; points that do not fit are refused",
        fix="end what uses memory, or use a larger machine",
        values={"available_bytes": available},
    )


def _swap(tree: Tree) -> Check:
    size = parse_memory(tree.text("proc/meminfo") or "").get("SwapTotal", 0)
    if not size:
        return SAY.ok("swap", "none")
    return SAY.warn(
        "swap",
        format_bytes(size),
        so="at high density memory may be swapped out and look cheaper than it is",
        fix="swapoff -a, for the time of a run",
    )


def _huge_pages(tree: Tree) -> Check:
    choice = chosen(tree.text("sys/kernel/mm/transparent_hugepage/enabled"))
    if choice != "always":
        return SAY.ok("transparent huge pages", choice or "not in this kernel")
    return SAY.warn(
        "transparent huge pages",
        choice,
        so="memory is charged in pieces of 2 MiB, whenever the kernel finds some",
        fix="echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    )


def _merging(tree: Tree) -> Check:
    if tree.text("sys/kernel/mm/ksm/run") != "1":
        return SAY.ok("page merging (KSM)", "off")
    return SAY.warn(
        "page merging (KSM)",
        "on",
        so="equal pages are merged over minutes, so memory of virtual machines shrinks with time",
        fix="echo 2 > /sys/kernel/mm/ksm/run",
    )


def _access_monitor(tree: Tree) -> Check:
    count = tree.number("sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds") or 0
    workers = [
        pid
        for pid in tree.names("proc")
        if pid.isdigit() and (tree.text(f"proc/{pid}/comm") or "").startswith("kdamond")
    ]
    if not workers:
        return SAY.ok("access monitor (DAMON)", "not running", values={"configured_count": count})
    return SAY.warn(
        "access monitor (DAMON)",
        f"kernel thread {', '.join(f'{pid}' for pid in workers)} watches memory accesses",
        so="it takes some processor time, and may give back memory that a sandbox holds",
        fix="echo off > /sys/kernel/mm/damon/admin/kdamonds/0/state, if it is yours",
        values={"configured_count": count},
    )
