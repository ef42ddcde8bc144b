"""Whether requests pile up: how many were due and had not ended, at two instants of a load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


class Stretch(Protocol):
    """What happened in one interval of a load, by completion."""

    @property
    def end_ns(self) -> int:
        """Its end."""
        ...

    @property
    def intended_count(self) -> int:
        """Requests that were due in it."""
        ...

    @property
    def ok_count(self) -> int:
        """Requests that ended in it with a correct reply."""
        ...

    @property
    def failed_count(self) -> int:
        """Requests that ended in it in any other way."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlogs:
    """Requests that were due and had not ended; whatever its outcome, a request ends once."""

    middle_count: int
    end_count: int
    offered_count: int
    """Due between the two instants."""


def read_backlogs(
    intervals: Iterable[Stretch], *, measure_start_ns: int, measure_end_ns: int
) -> Backlogs | None:
    """Count at the ends of the intervals nearest to the middle and to the end of the measure phase.

    A request that is refused, lost or given up has ended, and is no part of a backlog. None for a
    load without two such instants.
    """
    middle_ns = (measure_start_ns + measure_end_ns) / 2
    due_count = ended_count = 0
    rows = []
    for interval in intervals:
        due_count += interval.intended_count
        ended_count += interval.ok_count + interval.failed_count
        rows.append((interval.end_ns, due_count, due_count - ended_count))
    middle = min(rows, key=lambda row: abs(row[0] - middle_ns), default=None)
    end = min(rows, key=lambda row: abs(row[0] - measure_end_ns), default=None)
    if middle is None or end is None or middle[0] >= end[0]:
        return None
    return Backlogs(middle_count=middle[2], end_count=end[2], offered_count=end[1] - middle[1])
