"""Readings of live sandboxes: memory by every method, idling, limits, and the guest's own view."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.benches.start_books import daemon_cpu_ns
from seatrial.errors import SeatrialError
from seatrial.guest.channel import GuestChannel
from seatrial.probes.memory import (
    HostMemory,
    parse_kib_fields,
    read_host_memory,
    read_processes_memory,
)
from seatrial.probes.switches import read_switches, switches_between

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.benches.base import Row
    from seatrial.drivers.base import DriverSession


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleBegin:
    """What was read when the idle window began."""

    at_ns: int
    cpu_ns: int | None
    daemon_ns: int | None
    pss_bytes: int
    switches: Mapping[int, int]


class DensityBooks:
    """Reads the sandboxes of one session; ``ids`` is the caller's list, which grows."""

    def __init__(self, session: DriverSession, ids: Sequence[str], *, before: HostMemory) -> None:
        self._session = session
        self._ids = ids
        self._before = before

    def memory_row(self) -> Row:
        """Memory now, by every method, of all sandboxes together."""
        found = self._members()
        pids = [pid for members in found for pid in members]
        processes = read_processes_memory(pids)
        charges = [self._session.cgroups(plan_id).read_memory() for plan_id in self._ids]
        known = [charge for charge in charges if charge is not None]
        kernels = [charge.kernel_bytes for charge in known if charge.kernel_bytes is not None]
        host = read_host_memory()
        is_readable = processes.process_count > 0
        row: Row = {
            "count": len(self._ids),
            "processes_count": processes.process_count,
            "fewest_processes_count": min((len(members) for members in found), default=0),
            "most_processes_count": max((len(members) for members in found), default=0),
            "unreadable_count": processes.unreadable_count,
            "dead_count": sum(not members for members in found),
            "pss_bytes": processes.pss_bytes if is_readable else None,
            "uss_bytes": processes.uss_bytes if is_readable else None,
            "rss_bytes": processes.rss_bytes if is_readable else None,
            "cgroup_bytes": sum(charge.usage_bytes for charge in known)
            if len(known) == len(charges)
            else None,
            "kernel_bytes": sum(kernels) if len(kernels) == len(charges) else None,
            "kernel_growth_bytes": kernel_bytes(host) - kernel_bytes(self._before),
            "mem_available_drop_bytes": self._before.available_bytes - host.available_bytes,
            "slab_growth_bytes": host.slab_bytes - self._before.slab_bytes,
        }
        shared = self._session.shared()
        if shared is not None:
            daemon = read_processes_memory(shared.processes)
            row["daemon_pss_bytes"] = daemon.pss_bytes
            row["daemon_processes_count"] = daemon.process_count
        return row

    def role_rows(self) -> list[Row]:
        """Memory now by the role of the processes: payload, runtime, helpers."""
        roles: dict[str, list[int]] = {}
        for plan_id in self._ids:
            for pid, role in self._session.processes(plan_id).items():
                roles.setdefault(role, []).append(pid)
        rows: list[Row] = []
        for role, pids in sorted(roles.items()):
            memory = read_processes_memory(pids)
            rows.append(
                {
                    "role": role,
                    "processes_count": memory.process_count,
                    "pss_bytes": memory.pss_bytes,
                    "uss_bytes": memory.uss_bytes,
                    "rss_bytes": memory.rss_bytes,
                }
            )
        return rows

    def alive_row(self) -> Row:
        """How many live at the end of filling, as the last row of the table ``fill``."""
        return {
            "count": sum(bool(members) for members in self._members()),
            "available_bytes": read_host_memory().available_bytes,
            "slowest_ready_ns": None,
            "stopped_by": "alive",
        }

    def begin_idle(self) -> IdleBegin:
        """Reads what idling will be measured from; the instant last."""
        pids = [pid for members in self._members() for pid in members]
        return IdleBegin(
            pss_bytes=read_processes_memory(pids).pss_bytes,
            daemon_ns=daemon_cpu_ns(self._session),
            switches=read_switches(pids),
            cpu_ns=self._cpu_ns(),
            at_ns=time.monotonic_ns(),
        )

    def end_idle(self, begin: IdleBegin) -> Row:
        """Reads again, the instant first; gives the row of the table ``idle``."""
        now_ns = time.monotonic_ns()
        cpu_ns = self._cpu_ns()
        pids = [pid for members in self._members() for pid in members]
        switches = read_switches(pids)
        daemon_ns = daemon_cpu_ns(self._session)
        memory = read_processes_memory(pids)
        return {
            "count": len(self._ids),
            "window_ns": now_ns - begin.at_ns,
            "cpu_ns": None if cpu_ns is None or begin.cpu_ns is None else cpu_ns - begin.cpu_ns,
            "daemon_cpu_ns": None
            if daemon_ns is None or begin.daemon_ns is None
            else daemon_ns - begin.daemon_ns,
            "switches_count": switches_between(begin.switches, switches) if switches else None,
            "pss_growth_bytes": memory.pss_bytes - begin.pss_bytes
            if memory.process_count
            else None,
        }

    def limits_row(self, asked_bytes: int | None) -> Row:
        """The limits that hold, seen from outside; and memory as the first guest sees it."""
        limits = [self._session.cgroups(plan_id).memory_limit_bytes() for plan_id in self._ids]
        known = [limit for limit in limits if limit is not None]
        row: Row = {
            "count": len(limits),
            "asked_bytes": asked_bytes,
            "lowest_bytes": min(known, default=None),
            "highest_bytes": max(known, default=None),
            "unlimited_count": len(limits) - len(known),
        }
        row.update(self._guest_view(self._ids[0]))
        pids = tuple(self._session.processes(self._ids[0]))
        row["host_pss_bytes"] = read_processes_memory(pids).pss_bytes or None
        return row

    def _guest_view(self, plan_id: str) -> Row:
        try:
            with GuestChannel(self._session.launcher.channel(plan_id), name=plan_id) as channel:
                said = channel.run({"probe": "memory-view"})
        except SeatrialError:
            # A guest without /proc has no view; its columns stay unknown.
            return {}
        fields = parse_kib_fields(str(said.get("meminfo", "")))
        return {
            "guest_total_bytes": fields.get("MemTotal"),
            "guest_available_bytes": fields.get("MemAvailable", fields.get("MemFree")),
        }

    def _members(self) -> list[tuple[int, ...]]:
        return [tuple(self._session.processes(plan_id)) for plan_id in self._ids]

    def _cpu_ns(self) -> int | None:
        books = [self._session.cgroups(plan_id).read_cpu() for plan_id in self._ids]
        known = [book.total_ns for book in books if book is not None]
        return sum(known) if len(known) == len(books) else None


def kernel_bytes(host: HostMemory) -> int:
    """Kernel memory of the whole host that grows with sandboxes and is no cache."""
    parts = (
        host.slab_unreclaimable_bytes,
        host.kernel_stack_bytes,
        host.page_tables_bytes,
        host.percpu_bytes,
    )
    return sum(part for part in parts if part is not None)
