"""How quiet the host is: a gate before a timed window, and the books of each window.

``/proc/stat`` counts in clock ticks (10 ms here), so a window shorter than about ten ticks says
little; its length is kept beside the shares, and the reader may weigh them. *Foreign* is the CPU
time the host was busy for, less what Seatrial and its sandboxes used: it therefore includes
kernel threads that work on our behalf, which no process or cgroup is charged for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

PROC_STAT = Path("/proc/stat")
GATE_SLICE_NS = 50_000_000
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCpu:
    """Cumulative CPU time of the whole host since boot, summed over processors."""

    at_ns: int
    busy_ns: int
    """The sum of the two that follow."""
    user_ns: int
    """User and nice time; a guest's is in it."""
    system_ns: int
    """System, interrupt and softirq time."""
    steal_ns: int
    processors_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRecord:
    """What happened on the host during one timed stretch."""

    name: str
    started_at_ns: int
    ended_at_ns: int
    own_cpu_ns: int
    host_busy_ns: int
    steal_ns: int
    processors_count: int
    gate_wait_ns: int
    was_quiet: bool

    @property
    def capacity_ns(self) -> int:
        """CPU time the host could have given in the window (ns, > 0)."""
        return max((self.ended_at_ns - self.started_at_ns) * self.processors_count, 1)

    @property
    def foreign_cpu_ratio(self) -> float:
        """Share of the host's CPU capacity used by others, 0..1."""
        foreign_ns = max(self.host_busy_ns - self.own_cpu_ns, 0)
        return min(foreign_ns / self.capacity_ns, 1.0)

    @property
    def steal_ratio(self) -> float:
        """Share of the host's CPU capacity that the hypervisor gave to someone else, 0..1."""
        return min(max(self.steal_ns, 0) / self.capacity_ns, 1.0)

    def row(self) -> dict[str, object]:
        """Returns the record as one row of the ``windows`` table."""
        return {
            "name": self.name,
            "started_at_ns": self.started_at_ns,
            "ended_at_ns": self.ended_at_ns,
            "own_cpu_ns": self.own_cpu_ns,
            "host_busy_ns": self.host_busy_ns,
            "steal_ns": self.steal_ns,
            "processors_count": self.processors_count,
            "gate_wait_ns": self.gate_wait_ns,
            "was_quiet": self.was_quiet,
            "foreign_cpu_ratio": self.foreign_cpu_ratio,
            "steal_ratio": self.steal_ratio,
        }


def parse_host_cpu(text: str, *, at_ns: int, tick_ns: int) -> HostCpu:
    """Reads the text of ``/proc/stat``.

    Busy is user + nice + system + irq + softirq (guest time is inside user already); idle,
    iowait and steal are not. See proc(5).
    """
    lines = text.splitlines()
    fields = [int(word) for word in lines[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    processors = sum(1 for line in lines[1:] if line.startswith("cpu"))
    users, kernels = user + nice, system + irq + softirq
    return HostCpu(
        at_ns=at_ns,
        busy_ns=(users + kernels) * tick_ns,
        user_ns=users * tick_ns,
        system_ns=kernels * tick_ns,
        steal_ns=steal * tick_ns,
        processors_count=max(processors, 1),
    )


def read_host_cpu() -> HostCpu:
    """Returns the host's CPU books now."""
    import os

    tick_ns = NS_PER_S // os.sysconf("SC_CLK_TCK")
    return parse_host_cpu(PROC_STAT.read_text(), at_ns=time.monotonic_ns(), tick_ns=tick_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """When the host counts as quiet, and how long to wait for it."""

    busy_ratio_max: float = 0.10
    """Highest share of the host's CPU that others may use in a 50 ms slice: one tick of 10 ms on
    two processors."""
    wait_ns_max: int = NS_PER_S


class NoiseMonitor:
    """Makes windows; ``own_cpu_ns`` returns the CPU time used so far by Seatrial's own tree."""

    def __init__(self, *, own_cpu_ns: Callable[[], int], gate: Gate | None = None) -> None:
        self._own_cpu_ns = own_cpu_ns
        self._gate = gate or Gate()
        self.records: list[WindowRecord] = []

    def wait_until_quiet(self) -> tuple[int, bool]:
        """Waits for a quiet slice, at most the gate's bound; returns (waited ns, was quiet)."""
        started_ns = time.monotonic_ns()
        while True:
            before, own_before = read_host_cpu(), self._own_cpu_ns()
            time.sleep(GATE_SLICE_NS / NS_PER_S)
            after, own_after = read_host_cpu(), self._own_cpu_ns()
            foreign_ns = after.busy_ns - before.busy_ns - (own_after - own_before)
            capacity_ns = (after.at_ns - before.at_ns) * after.processors_count
            waited_ns = time.monotonic_ns() - started_ns
            if foreign_ns <= self._gate.busy_ratio_max * capacity_ns:
                return waited_ns, True
            if waited_ns >= self._gate.wait_ns_max:
                return waited_ns, False

    def window(self, name: str) -> Window:
        """Returns a context manager that gates, then keeps the books until it is left."""
        return Window(name=name, monitor=self)

    def own_cpu_ns(self) -> int:
        """Returns the CPU time of Seatrial's own tree so far (ns)."""
        return self._own_cpu_ns()


class Window:
    """One timed stretch; entering waits for the gate, leaving appends a record."""

    def __init__(self, *, name: str, monitor: NoiseMonitor) -> None:
        self._name = name
        self._monitor = monitor

    def __enter__(self) -> Self:
        """Waits for a quiet host (bounded) and opens the books."""
        self._gate_wait_ns, self._was_quiet = self._monitor.wait_until_quiet()
        self._own_before_ns = self._monitor.own_cpu_ns()
        self._before = read_host_cpu()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the books and keeps the record, whatever happened inside."""
        after = read_host_cpu()
        own_after_ns = self._monitor.own_cpu_ns()
        self._monitor.records.append(
            WindowRecord(
                name=self._name,
                started_at_ns=self._before.at_ns,
                ended_at_ns=after.at_ns,
                own_cpu_ns=own_after_ns - self._own_before_ns,
                host_busy_ns=after.busy_ns - self._before.busy_ns,
                steal_ns=after.steal_ns - self._before.steal_ns,
                processors_count=after.processors_count,
                gate_wait_ns=self._gate_wait_ns,
                was_quiet=self._was_quiet,
            )
        )
