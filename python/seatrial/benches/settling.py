"""When memory has settled: not before several readings in a row agree."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from seatrial.probes.memory import read_processes_memory
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seatrial.drivers.base import DriverSession
    from seatrial.probes.memory import ProcessMemory

SETTLE_INTERVAL_NS: Final = 250_000_000
SETTLED_CHANGE_RATIO: Final = 0.01
#: So many readings in a row have to agree: two may meet on the way.
SETTLED_READINGS_COUNT: Final = 3
#: Of sandboxes that have just come up.
SETTLE_TIMEOUT_NS: Final = 10 * NS_PER_S


def read_until_settled(read: Callable[[], float | None], *, timeout_ns: int) -> bool:
    """Read again and again until readings agree; False when they do not in time.

    A reading of None, of something that could not be read whole, agrees with nothing. The first
    reading is taken at once, the others `SETTLE_INTERVAL_NS` apart.
    """
    deadline_ns = time.monotonic_ns() + timeout_ns
    taken = [read()]
    while not _agree(taken[-SETTLED_READINGS_COUNT:]):
        if time.monotonic_ns() >= deadline_ns:
            return False
        time.sleep(SETTLE_INTERVAL_NS / NS_PER_S)
        taken.append(read())
    return True


def settled_memory(session: DriverSession, plan_ids: Sequence[str]) -> ProcessMemory | None:
    """Read the memory of all processes of sandboxes once it has settled: some join them late.

    None when it does not settle, or not all of it can be read: a sum over some of the processes is
    not the sum. Processes that cannot be read at all are not waited for.
    """

    def look() -> ProcessMemory:
        pids = [pid for plan_id in plan_ids for pid in session.processes(plan_id)]
        return read_processes_memory(pids)

    def read() -> float | None:
        last.append(look())
        return last[-1].pss_bytes if last[-1].unreadable_count == 0 else None

    last = [look()]
    if last[0].process_count == 0:
        return None
    return last[-1] if read_until_settled(read, timeout_ns=SETTLE_TIMEOUT_NS) else None


def _agree(last: list[float | None]) -> bool:
    values = [value for value in last if value is not None]
    if len(values) < SETTLED_READINGS_COUNT:
        return False
    return max(values) - min(values) <= SETTLED_CHANGE_RATIO * max(*values, 1)
