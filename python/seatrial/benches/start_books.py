"""Who used the processors while a batch came up: sandboxes, daemon, company, Seatrial, everybody.

Each of them is read before and after, from the most exact source there is. What nobody is charged
for (kernel threads that free namespaces and groups, and other users of the host) is the rest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.probes.noise import HostCpu, read_host_cpu

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seatrial.benches.background import Background
    from seatrial.benches.base import Row
    from seatrial.drivers.base import DriverSession

PROC: Final = Path("/proc")
#: The number of the control window among the rounds.
CONTROL_ROUND: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is known of everybody at its begin."""

    host: HostCpu
    tool_ns: int
    launchers_ns: int
    daemon_ns: int | None
    background_ns: int | None


class Books:
    """Opens and closes windows for one session, and for what lives beside it."""

    def __init__(self, session: DriverSession, background: Background | None) -> None:
        self._session = session
        self._background = background

    def open(self) -> Window:
        """Reads everybody now."""
        pids = [self._session.launcher.pid]
        if self._background is not None:
            pids.append(self._background.launcher_pid)
        return Window(
            daemon_ns=daemon_cpu_ns(self._session),
            background_ns=None if self._background is None else self._background.cpu_ns(),
            launchers_ns=threads_cpu_ns(pids),
            tool_ns=time.process_time_ns(),
            host=read_host_cpu(),
        )

    def close(
        self,
        before: Window,
        *,
        round_number: int,
        is_floor: bool,
        starts_count: int,
        sandboxes_cpu_ns: int | None,
    ) -> Row:
        """Reads everybody again; gives the row of the table ``books``."""
        after = self.open()
        tool_ns = after.tool_ns - before.tool_ns
        return {
            "round": round_number,
            "is_floor": is_floor,
            "is_control": starts_count == 0,
            "starts_count": starts_count,
            "started_at_ns": before.host.at_ns,
            "ended_at_ns": after.host.at_ns,
            "sandboxes_cpu_ns": sandboxes_cpu_ns,
            "daemon_cpu_ns": _difference(after.daemon_ns, before.daemon_ns),
            "background_cpu_ns": _difference(after.background_ns, before.background_ns),
            "tool_cpu_ns": tool_ns + max(after.launchers_ns - before.launchers_ns, 0),
            "host_user_ns": after.host.user_ns - before.host.user_ns,
            "host_system_ns": after.host.system_ns - before.host.system_ns,
            "steal_ns": after.host.steal_ns - before.host.steal_ns,
        }


def daemon_cpu_ns(session: DriverSession) -> int | None:
    """CPU time of what serves all sandboxes; None: there is no such thing, or it is not booked."""
    shared = session.shared()
    if shared is None:
        return None
    charged = shared.cgroups.read_cpu()
    return threads_cpu_ns(shared.processes) if charged is None else charged.total_ns


def threads_cpu_ns(pids: Iterable[int], *, proc: Path = PROC) -> int:
    """CPU time of all live threads of some processes, as exact as the scheduler has it.

    A thread that ends takes its time along, so this is for processes that keep theirs.
    """
    total = 0
    for pid in pids:
        try:
            folders = list((proc / str(pid) / "task").iterdir())
        except OSError:
            continue
        for folder in folders:
            try:
                # Time on a processor, time waiting for one, time slices (ns, ns, count).
                total += int((folder / "schedstat").read_text().split()[0])
            except (OSError, IndexError, ValueError):
                continue
    return total


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
