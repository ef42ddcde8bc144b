"""A few null starts before each trial: the same work every time, so a change is the machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.drivers.base import SandboxSpec

if TYPE_CHECKING:
    from seatrial.drivers.base import DriverSession

STARTS_COUNT = 5
DEADLINE_NS = 5_000_000_000
STOP_GRACE_NS = 1_000_000_000


class Sentinel:
    """Starts null processes one by one through a session that lives as long as the run."""

    def __init__(self, session: DriverSession) -> None:
        self._session = session
        self._next_index = 0

    def take(self) -> list[dict[str, object]]:
        """Returns the rows of the ``sentinel`` table: due and first byte of each start."""
        rows: list[dict[str, object]] = []
        for position in range(STARTS_COUNT):
            plan = self._session.plan(
                SandboxSpec(role=("null",), ready="hello", deadline_ns=DEADLINE_NS),
                self._next_index,
            )
            self._next_index += 1
            try:
                batch = self._session.launcher.start(
                    [plan], wait_for="hello", hold=False, timeout_ns=2 * DEADLINE_NS
                )
            finally:
                self._session.release(plan.id)
            result = batch.results[0]
            rows.append(
                {
                    "position": position,
                    "due_at_ns": result.due_at_ns,
                    "first_byte_at_ns": result.first_byte_at_ns,
                }
            )
        return rows
