"""Killing exactly the processes that are ours, however fast their numbers are used again.

A number read from a table may belong to somebody else by the time a signal is sent to it. So each
process is first held by a descriptor, then looked for once more, and only what is found again is
signalled, through the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

#: How many processes are held at once; descriptors are few.
HELD_MAX: Final = 128
#: How long a table may take to forget a process that has ended before it is read again.
POLL_QUANTUM_NS: Final = 500_000


def kill_until_gone(find: Callable[[], Collection[int]], *, timeout_ns: int) -> tuple[int, ...]:
    """Kill what ``find`` finds, again and again until it finds nothing; give what would not go."""
    deadline_ns = time.monotonic_ns() + timeout_ns
    while pids := sorted(find()):
        for first in range(0, len(pids), HELD_MAX):
            _kill_batch(pids[first : first + HELD_MAX], find, deadline_ns=deadline_ns)
        if time.monotonic_ns() >= deadline_ns:
            return tuple(sorted(find()))
        time.sleep(POLL_QUANTUM_NS / 1e9)
    return ()


def _kill_batch(
    pids: Iterable[int], find: Callable[[], Collection[int]], *, deadline_ns: int
) -> None:
    """Kill those of some processes that are found once more, and wait for their ends."""
    with contextlib.ExitStack() as held:
        descriptors: dict[int, int] = {}
        for pid in pids:
            descriptor = _hold(pid)
            if descriptor is not None:
                held.callback(os.close, descriptor)
                descriptors[pid] = descriptor
        still = find()
        killed = [one for pid, one in descriptors.items() if pid in still and _kill(one)]
        for descriptor in killed:
            rest_ns = max(0, deadline_ns - time.monotonic_ns())
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            # Rounded up, so that the wait does not turn into a spin just before the deadline.
            poller.poll(-(-rest_ns // 1_000_000))


def _hold(pid: int) -> int | None:
    """Open a descriptor of a process; None: there is no such process (any more)."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # EINVAL: the number is by now that of a thread.
        if error.errno in {errno.ESRCH, errno.EINVAL}:
            return None
        raise


def _kill(descriptor: int) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True
