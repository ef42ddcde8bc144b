"""What is looked at while a load runs: whether it may end, and what a person sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from seatrial.agents.live import IntervalBook, LoadSnapshot
from seatrial.loadtest.examine import counts_of
from seatrial.stats.converge import Snapshot

if TYPE_CHECKING:
    from seatrial.agents.outcome import IntervalOutcome
    from seatrial.stats.converge import Convergence, Decision

#: The last stretches may still grow while other agents report theirs.
OPEN_STRETCHES: Final = 2


class View(Protocol):
    """Something that shows a load while it runs."""

    def show(self, snapshot: LoadSnapshot, stretches: tuple[IntervalOutcome, ...]) -> None:
        """Shows what has been found so far; `stretches` are all so far, in the order of time."""


class Watcher:
    """Takes snapshots, passes them on, and says when the load may end."""

    def __init__(
        self, *, warm_up_ns: int, convergence: Convergence | None, view: View | None
    ) -> None:
        """Begins before the first snapshot."""
        self._warm_up_ns = warm_up_ns
        self._convergence = convergence
        self._view = view
        self._book = IntervalBook()
        #: What the convergence said last; None without one.
        self.decision: Decision | None = None

    def see(self, snapshot: LoadSnapshot) -> bool:
        """Takes a snapshot; whether the load has shown enough."""
        self._book.add(snapshot.intervals)
        stretches = self._book.merged()
        if self._view is not None:
            self._view.show(snapshot, stretches)
        measured_ns = snapshot.elapsed_ns - self._warm_up_ns
        convergence = self._convergence
        if convergence is None or measured_ns < convergence.next_look_ns:
            return False
        # Empty stretches stay, so that distances in time are right.
        closed = measured_stretches(stretches, self._warm_up_ns)[:-OPEN_STRETCHES]
        self.decision = convergence.look(
            Snapshot(
                elapsed_ns=measured_ns,
                intervals=[counts_of(stretch.response) for stretch in closed],
                pooled=counts_of(snapshot.response),
                is_saturated=False,
            )
        )
        return self.decision.is_done


def measured_stretches(
    stretches: tuple[IntervalOutcome, ...], warm_up_ns: int
) -> tuple[IntervalOutcome, ...]:
    """Returns the stretches after the warm-up; their grid begins where the measure phase does."""
    if not stretches:
        return ()
    width_ns = max(stretch.end_ns - stretch.start_ns for stretch in stretches)
    warm_up_count = -(-warm_up_ns // width_ns)
    measured_from_ns = stretches[0].end_ns + (warm_up_count - 1) * width_ns
    return tuple(stretch for stretch in stretches if stretch.start_ns >= measured_from_ns)
