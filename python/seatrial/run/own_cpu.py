"""The CPU time that Seatrial's own tree has used: this process, its launchers, its sandboxes.

Windows subtract it from what the host was busy for; what remains is foreign.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NS_PER_S = 1_000_000_000
# Fields of /proc/PID/stat after the command's closing parenthesis, from 0: see proc(5).
UTIME, STIME, CUTIME, CSTIME = 11, 12, 13, 14


def process_cpu_ns(pid: int, *, with_reaped: bool) -> int:
    """Returns a process's CPU time (ns, in steps of a clock tick); 0 when it is gone.

    ``with_reaped`` adds what its waited-for children had used.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    wanted = (UTIME, STIME, CUTIME, CSTIME) if with_reaped else (UTIME, STIME)
    ticks = sum(int(fields[index]) for index in wanted)
    return ticks * (NS_PER_S // os.sysconf("SC_CLK_TCK"))


class OwnCpu:
    """Sums the books of all open sessions; closed ones keep their last reading.

    ``run_cgroup_cpu_ns`` returns the CPU time of the run's top cgroup, sandboxes of finished
    trials included, or ``None`` where there are no cgroups: then what the launchers have reaped
    stands in, which misses sandboxes that still live.
    """

    def __init__(self, *, run_cgroup_cpu_ns: Callable[[], int | None]) -> None:
        self._run_cgroup_cpu_ns = run_cgroup_cpu_ns
        self._launchers: set[int] = set()
        self._closed_ns = 0

    def add_launcher(self, pid: int) -> None:
        """Counts a launcher from now on."""
        self._launchers.add(pid)

    def remove_launcher(self, pid: int) -> None:
        """Keeps the last reading of a launcher that is about to be closed."""
        if pid in self._launchers:
            self._launchers.remove(pid)
            self._closed_ns += self._launcher_ns(pid)

    def read_ns(self) -> int:
        """Returns the CPU time used so far (ns)."""
        cgroup_ns = self._run_cgroup_cpu_ns() or 0
        launchers_ns = sum(self._launcher_ns(pid) for pid in self._launchers)
        return time.process_time_ns() + cgroup_ns + launchers_ns + self._closed_ns

    def _launcher_ns(self, pid: int) -> int:
        return process_cpu_ns(pid, with_reaped=self._run_cgroup_cpu_ns() is None)
