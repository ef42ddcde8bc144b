"""Keeps other work on the machine out of a measurement, or at least says how much there was."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from benchmarks.series import Run
from seatrial.probes.noise import Gate, NoiseMonitor
from seatrial.run.own_cpu import process_cpu_ns
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.series import Figures
    from benchmarks.settings import Settings

#: Processors that others may keep busy in a run that counts at once; more makes it repeated.
FOREIGN_CPUS_MAX = 0.08


class Quiet:
    """Runs measurements on a quiet machine; `helpers` are processes of ours that live meanwhile.

    `own_cpu_ns` says instead what was ours, where a daemon that nobody here reaps does the work.
    """

    def __init__(self, settings: Settings, *, own_cpu_ns: Callable[[], int] | None = None) -> None:
        self._settings = settings
        self._helpers: set[int] = set()
        gate = Gate(wait_ns_max=max(settings.gate_wait_ns, 1))
        self._monitor = NoiseMonitor(own_cpu_ns=own_cpu_ns or self._own_cpu_ns, gate=gate)

    def add_helpers(self, pids: Iterable[int]) -> None:
        """Counts the CPU time of these processes as ours, as long as they live."""
        self._helpers.update(pids)

    def measure(self, run: Callable[[], Figures]) -> Run:
        """Runs it when the machine is quiet, again when it did not stay so; the quietest counts."""
        best: Run | None = None
        for _ in range(self._settings.tries):
            with self._monitor.window("run"):
                figures = run()
            record = self._monitor.records.pop()
            foreign_cpus = record.foreign_cpu_ratio * record.processors_count
            if best is None or foreign_cpus < best.foreign_cpus:
                best = Run(figures=figures, foreign_cpus=foreign_cpus)
            if best.foreign_cpus <= FOREIGN_CPUS_MAX:
                break
        if best is None:
            raise ValueError(f"{self._settings.tries} tries; expected at least 1")
        return best

    def _own_cpu_ns(self) -> int:
        own = 0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            own += int((usage.ru_utime + usage.ru_stime) * NS_PER_S)
        return own + sum(process_cpu_ns(pid, with_reaped=True) for pid in self._helpers)
