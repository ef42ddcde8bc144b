"""How a load goes while it runs: what one process or several have found so far."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Final

from seatrial.agents.outcome import IntervalOutcome, Tally
from seatrial.loadgen import Histogram, merge_histograms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.loadgen import Snapshot


#: Most stretches that are kept of a load while it runs; beyond them pairs become one.
STRETCHES_MAX: Final = 2048


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadSnapshot:
    """What has been found so far."""

    # Since the common start, warm-up included.
    elapsed_ns: int
    # Of the measure phase.
    measured: Tally
    response: Histogram
    # Stretches of time that have ended since the last snapshot.
    intervals: tuple[IntervalOutcome, ...]

    @classmethod
    def of(cls, snapshot: Snapshot) -> LoadSnapshot:
        """Returns the core's snapshot."""
        return cls(
            elapsed_ns=snapshot.elapsed_ns,
            measured=Tally.of(snapshot.measured),
            response=snapshot.response_histogram,
            intervals=tuple(IntervalOutcome.of(interval) for interval in snapshot.intervals),
        )


class TeamSnapshot:
    """The latest snapshots of all agents, seen as one."""

    def __init__(self) -> None:
        """Nobody has said anything yet."""
        self._latest: dict[str, LoadSnapshot] = {}
        self._new: list[IntervalOutcome] = []
        #: Whether something came since `take_all`.
        self.is_fresh = False

    def put(self, name: str, snapshot: LoadSnapshot) -> None:
        """Keeps what an agent says."""
        self._latest[name] = snapshot
        self._new += snapshot.intervals
        self.is_fresh = True

    def take_all(self) -> LoadSnapshot:
        """Returns all of them as one; stretches of different agents are not put together."""
        self.is_fresh = False
        new, self._new = tuple(self._new), []
        latest = self._latest.values()
        return LoadSnapshot(
            elapsed_ns=max((one.elapsed_ns for one in latest), default=0),
            measured=functools.reduce(Tally.__add__, (one.measured for one in latest), Tally()),
            response=merge_histograms([one.response for one in latest]),
            intervals=new,
        )


class IntervalBook:
    """Stretches of time as they come in, those of the same time put together; bounded."""

    def __init__(self) -> None:
        """Empty."""
        self._slots: dict[int, IntervalOutcome] = {}
        self._width_ns = 1
        self._origin_ns: int | None = None

    def add(self, intervals: Sequence[IntervalOutcome]) -> None:
        """Files stretches; a wider one than before widens all slots, as do too many."""
        for interval in intervals:
            if self._origin_ns is None:
                self._origin_ns = interval.start_ns
            width_ns = interval.end_ns - interval.start_ns
            if width_ns > self._width_ns:
                self._widen(width_ns)
            self._file(interval)
            if len(self._slots) > STRETCHES_MAX:
                self._widen(2 * self._width_ns)

    def _widen(self, width_ns: int) -> None:
        known, self._slots, self._width_ns = self._slots, {}, width_ns
        for interval in known.values():
            self._file(interval)

    def _file(self, interval: IntervalOutcome) -> None:
        slot = (interval.start_ns - (self._origin_ns or 0)) // self._width_ns
        known = self._slots.get(slot)
        self._slots[slot] = interval if known is None else known.merged(interval)

    def merged(self) -> tuple[IntervalOutcome, ...]:
        """All stretches, in the order of time."""
        return tuple(self._slots[slot] for slot in sorted(self._slots))
