"""Removing pods from a server's books, as far as the server does it, in bounded time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.drivers import state
from seatrial.drivers.cri import calls
from seatrial.errors import SeatrialError
from seatrial.probes import leaks
from seatrial.probes.killing import kill_until_gone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.probes.cgroup import Cgroup

#: How the command line of every containerd shim begins.
SHIM_PREFIX: Final = "containerd-shim"
KILL_TIMEOUT_NS: Final = 5_000_000_000
#: How long a server that did not even give its list is left alone.
DEAF_NS: Final = 20_000_000_000


def kill_shims(endpoint: Path, labels: Mapping[str, str], group: Cgroup) -> None:
    """Kill the shims in a private server's own group that serve the pods with these labels.

    A client that is killed while its container is being started leaves a task that the server
    calls running and stopped at once, and so never removes ("cannot delete running task"). Without
    its shim the server forgets the task.
    """
    try:
        ids = {*calls.pods(endpoint, labels), *calls.containers(endpoint, labels)}
    except SeatrialError:
        return

    def shims() -> list[int]:
        return [pid for pid in group.members() if _served_by(pid) in ids]

    sockets = state.held_shim_sockets(shims())
    kill_until_gone(shims, timeout_ns=KILL_TIMEOUT_NS)
    for path in sockets:
        path.unlink(missing_ok=True)


def _served_by(pid: int) -> str:
    """Give the id of what a shim was started for; empty: it is no shim."""
    words = leaks.command_line(pid).split()
    is_shim = bool(words) and Path(words[0]).name.startswith(SHIM_PREFIX)
    # "start" and "delete" are calls that the server makes, the latter to clean up after a shim.
    if not is_shim or words[-1] in {"start", "delete"} or "-id" not in words[:-1]:
        return ""
    return words[words.index("-id") + 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What came of it."""

    removed_count: int
    is_complete: bool
    """The server has none of these pods any more."""


class PodRemoval:
    """Removes pods by their labels; what stays is told, and found again by the audit."""

    def __init__(self) -> None:
        """Think well of the server."""
        self._deaf_until_ns = 0

    def remove(self, endpoint: Path, labels: Mapping[str, str]) -> Removed:
        """Remove the pods with these labels, each for itself."""
        if time.monotonic_ns() < self._deaf_until_ns:
            return Removed(removed_count=0, is_complete=False)
        try:
            found = calls.pods(endpoint, labels)
        except SeatrialError:
            # Else a server that hangs would cost hundreds of sandboxes a time-out each.
            self._deaf_until_ns = time.monotonic_ns() + DEAF_NS
            return Removed(removed_count=0, is_complete=False)
        removed_count = 0
        for pod_id in found:
            try:
                calls.remove_pod(endpoint, pod_id)
                removed_count += 1
            except SeatrialError:
                continue
        return Removed(removed_count=removed_count, is_complete=removed_count == len(found))
