"""The noise of the machine: who else works, what the hypervisor takes, how late a sleeper wakes.

Nothing of ours runs beside it. The processor is left alone first, for the books of others; then one
thread reads the clock without a pause, where a gap is time in which it could not run; then it
sleeps again and again, where lateness is what every event-driven tool on this machine adds.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from seatrial.doctor.check import About, Check, Group
from seatrial.probes import leaks
from seatrial.probes.noise import HostCpu, parse_host_cpu
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seatrial.doctor.tree import Tree


Clock: TypeAlias = "Callable[[], int]"

SAY: Final = About(Group.NOISE)
NS_PER_S: Final = 1_000_000_000
LOOK_NS: Final = 1_200_000_000
SPIN_NS: Final = 600_000_000
SLEEP_NS: Final = 1_000_000
SLEEPS_COUNT: Final = 400
BUSY_RATIO_MAX: Final = 0.10
STEAL_RATIO_MAX: Final = 0.02
#: A process that takes less is no suspect.
SUSPECT_RATIO_MIN: Final = 0.02
SUSPECTS_COUNT: Final = 5
COMMAND_CHARACTERS: Final = 60
#: Shorter gaps between two readings of the clock are the loop's own.
GAP_NS_MIN: Final = 10_000
GAP_NS_MAX: Final = 10_000_000
LOST_RATIO_MAX: Final = 0.05
LATE_NS_MAX: Final = 1_000_000
EDGES_NS: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
FIX: Final = "stop other work, or take ratios and more blocks instead of absolute times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The books of the host and of each process at one instant."""

    cpu: HostCpu
    switches_count: int
    processes_ns: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """Somebody who took processor time meanwhile."""

    pid: int
    ratio: float
    """Share of one processor."""
    command: str


def take_reading(tree: Tree, *, tick_ns: int) -> Reading:
    """Read the books of all processes now."""
    text = tree.text("proc/stat") or "cpu 0 0 0 0 0 0 0 0"
    proc = tree.path("proc")
    used = {}
    for name in tree.names("proc"):
        fields = leaks.stat_fields(int(name), proc=proc) if name.isdigit() else ()
        if len(fields) > 12:  # noqa: PLR2004 - proc(5): utime and stime come 11 and 12 after the state
            used[int(name)] = (int(fields[11]) + int(fields[12])) * tick_ns
    return Reading(
        cpu=parse_host_cpu(text, at_ns=time.monotonic_ns(), tick_ns=tick_ns),
        switches_count=parse_switches(text),
        processes_ns=used,
    )


def parse_switches(text: str) -> int:
    """Read how often a processor changed its task since boot, from /proc/stat; pure."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "ctxt":
            return int(value)
    return 0


def find_suspects(
    before: Reading, after: Reading, *, own: Sequence[int], tree: Tree
) -> tuple[Suspect, ...]:
    """Name those who took most between two readings, ourselves left out."""
    span_ns = max(after.cpu.at_ns - before.cpu.at_ns, 1)
    found = [
        Suspect(
            pid=pid,
            ratio=(used_ns - before.processes_ns.get(pid, used_ns)) / span_ns,
            command=leaks.command_line(pid, proc=tree.path("proc"))[:COMMAND_CHARACTERS],
        )
        for pid, used_ns in after.processes_ns.items()
        if pid not in own
        and used_ns - before.processes_ns.get(pid, used_ns) >= SUSPECT_RATIO_MIN * span_ns
    ]
    return tuple(sorted(found, key=lambda one: -one.ratio)[:SUSPECTS_COUNT])


def spin_gaps(span_ns: int, *, clock: Clock = time.monotonic_ns) -> tuple[list[int], int]:
    """Read the clock for a while; give the gaps over 10 us, and how long it went on (ns)."""
    gaps: list[int] = []
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        started_ns = last_ns = clock()
        while last_ns - started_ns < span_ns:
            now_ns = clock()
            if now_ns - last_ns >= GAP_NS_MIN:
                gaps.append(now_ns - last_ns)
            last_ns = now_ns
    finally:
        if was_collecting:
            gc.enable()
    return gaps, last_ns - started_ns


def sleep_lateness(count: int) -> list[int]:
    """Sleep for a millisecond again and again; give by how much each was late (ns), sorted."""
    late: list[int] = []
    for _ in range(count):
        due_ns = time.monotonic_ns() + SLEEP_NS
        time.sleep(SLEEP_NS / NS_PER_S)
        late.append(max(time.monotonic_ns() - due_ns, 0))
    return sorted(late)


def histogram(values_ns: Sequence[int]) -> list[tuple[str, int]]:
    """Count values between fixed edges, each bucket with its name; pure."""
    counts = [0] * (len(EDGES_NS) + 1)
    for value_ns in values_ns:
        counts[sum(value_ns >= edge for edge in EDGES_NS)] += 1
    names = [f"under {_edge(EDGES_NS[0])}"]
    names += [f"{_edge(low)} to {_edge(high)}" for low, high in pairwise(EDGES_NS)]
    names.append(f"{_edge(EDGES_NS[-1])} and more")
    return list(zip(names, counts, strict=True))


def _edge(value_ns: int) -> str:
    return f"{value_ns // 1_000} µs" if value_ns < 1_000_000 else f"{value_ns // 1_000_000} ms"  # noqa: PLR2004 - a millisecond


def check_noise(tree: Tree) -> Iterator[Check]:
    """Measure for about two and a half seconds."""
    tick_ns = NS_PER_S // os.sysconf("SC_CLK_TCK")
    before = take_reading(tree, tick_ns=tick_ns)
    own_before_ns = time.process_time_ns()
    time.sleep(LOOK_NS / NS_PER_S)
    after = take_reading(tree, tick_ns=tick_ns)
    own_ns = time.process_time_ns() - own_before_ns
    suspects = find_suspects(before, after, own=leaks.descendants([os.getpid()]), tree=tree)
    yield judge_foreign(before, after, own_ns=own_ns, suspects=suspects)
    yield judge_steal(before, after)
    yield judge_switches(before, after)
    yield judge_gaps(*spin_gaps(SPIN_NS))
    yield judge_lateness(sleep_lateness(SLEEPS_COUNT))


def judge_foreign(
    before: Reading, after: Reading, *, own_ns: int, suspects: Sequence[Suspect]
) -> Check:
    """Judge what others took of the processors; pure."""
    ratio = max(after.cpu.busy_ns - before.cpu.busy_ns - own_ns, 0) / _capacity_ns(before, after)
    evidence = f"{ratio:.0%} of {after.cpu.processors_count} processors"
    if suspects:
        evidence += ": " + "; ".join(
            f"{one.pid} {one.command} ({one.ratio:.0%} of one)" for one in suspects
        )
    values = {"busy_ratio": ratio, "suspects": suspects}
    if ratio <= BUSY_RATIO_MAX:
        return SAY.ok("other work", evidence, values=values)
    return SAY.warn(
        "other work",
        evidence,
        so="times scatter more; windows above the limit are marked noisy-host",
        fix=FIX,
        values=values,
    )


def judge_steal(before: Reading, after: Reading) -> Check:
    """Judge what the hypervisor gave to other machines; pure."""
    ratio = (after.cpu.steal_ns - before.cpu.steal_ns) / _capacity_ns(before, after)
    evidence = f"{ratio:.1%} taken by the hypervisor"
    if ratio <= STEAL_RATIO_MAX:
        return SAY.ok("steal", evidence, values={"steal_ratio": ratio})
    return SAY.warn(
        "steal",
        evidence,
        so="every time holds stretches in which this machine did not run",
        fix="measure at another hour, or on a machine of your own",
        values={"steal_ratio": ratio},
    )


def judge_switches(before: Reading, after: Reading) -> Check:
    """Tell how often the processors changed their tasks; pure."""
    span_ns = max(after.cpu.at_ns - before.cpu.at_ns, 1)
    rate = (after.switches_count - before.switches_count) * NS_PER_S / span_ns
    evidence = f"{rate:.0f} a second on all processors, while Seatrial slept"
    return SAY.ok("context switches", evidence, values={"switches_rps": rate})


def judge_gaps(gaps_ns: Sequence[int], span_ns: int) -> Check:
    """Judge the stretches in which a ready thread did not run; pure."""
    lost_ratio = sum(gaps_ns) / max(span_ns, 1)
    longest_ns = max(gaps_ns, default=0)
    evidence = (
        f"a thread that never waits lost {lost_ratio:.1%} of {format_duration(span_ns)} in "
        f"{len(gaps_ns)} gaps, the longest {format_duration(longest_ns)}"
    )
    values = {
        "lost_ratio": lost_ratio,
        "longest_ns": longest_ns,
        "histogram": histogram(gaps_ns),
    }
    if lost_ratio <= LOST_RATIO_MAX and longest_ns <= GAP_NS_MAX:
        return SAY.ok("jitter of a running thread", evidence, values=values)
    return SAY.warn(
        "jitter of a running thread",
        evidence,
        so="single times are longer by such gaps; medians of many are not",
        fix=FIX,
        values=values,
    )


def judge_lateness(late_ns: Sequence[int]) -> Check:
    """Judge how late a sleeper is woken; ``late_ns`` is sorted; pure."""
    middle_ns = late_ns[len(late_ns) // 2]
    high_ns = late_ns[len(late_ns) * 99 // 100]
    evidence = (
        f"{len(late_ns)} sleeps of 1 ms were late by {format_duration(middle_ns)} (p50), "
        f"{format_duration(high_ns)} (p99), {format_duration(late_ns[-1])} (longest)"
    )
    values = {
        "p50_ns": middle_ns,
        "p99_ns": high_ns,
        "longest_ns": late_ns[-1],
        "histogram": histogram(late_ns),
    }
    if high_ns <= LATE_NS_MAX:
        return SAY.ok("jitter of a sleeper", evidence, values=values)
    return SAY.warn(
        "jitter of a sleeper",
        evidence,
        so="who waits for an event learns of it late; loads at a rate are late unless they spin",
        fix=FIX,
        values=values,
    )


def _capacity_ns(before: Reading, after: Reading) -> int:
    return max((after.cpu.at_ns - before.cpu.at_ns) * after.cpu.processors_count, 1)
