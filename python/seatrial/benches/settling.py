"""When memory has settled: not before several readings in a row agree."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

SETTLE_INTERVAL_NS: Final = 250_000_000
SETTLED_CHANGE_RATIO: Final = 0.01
#: So many readings in a row have to agree: two may meet on the way.
SETTLED_READINGS_COUNT: Final = 3


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


def _agree(last: list[float | None]) -> bool:
    values = [value for value in last if value is not None]
    if len(values) < SETTLED_READINGS_COUNT:
        return False
    return max(values) - min(values) <= SETTLED_CHANGE_RATIO * max(*values, 1)
