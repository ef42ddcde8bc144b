"""Performs checks one after another, each under a deadline of its own and all under a budget.

A step runs on a thread that is given up when its deadline passes: whatever it started has deadlines
too (``proc.run``, the launcher's, the drivers' own), so that nothing goes on for ever. Lanes are
rows of steps that run beside each other, for steps that mostly wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from seatrial.doctor.check import About, Check, Group
from seatrial.units import format_duration

NS_PER_S: Final = 1_000_000_000
STEP_DEADLINE_NS: Final = 15 * NS_PER_S
#: Of all steps together; what has not begun by then is not tried.
BUDGET_NS: Final = 120 * NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some checks that belong together."""

    group: Group
    name: str
    look: Callable[[], Iterable[Check]]
    deadline_ns: int = STEP_DEADLINE_NS


class Performer:
    """Performs steps until the budget is used up or somebody says stop."""

    def __init__(
        self, *, budget_ns: int = BUDGET_NS, tell: Callable[[Step], None] | None = None
    ) -> None:
        """Begin to count the budget now; ``tell`` hears of each step before it begins."""
        self._ends_at_ns = time.monotonic_ns() + budget_ns
        self._tell = tell
        self._stop = threading.Event()

    def perform(self, steps: Sequence[Step]) -> list[Check]:
        """Perform steps in their order."""
        return [check for step in steps for check in self._perform_one(step)]

    def perform_lanes(self, lanes: Sequence[Sequence[Step]]) -> list[Check]:
        """Perform lanes beside each other; their checks come in the order of the lanes."""
        found: list[list[Check]] = [[] for _ in lanes]

        def run(number: int, steps: Sequence[Step]) -> None:
            found[number] = self.perform(steps)

        threads = [
            threading.Thread(target=run, args=(number, steps), name=f"seatrial-doctor-{number}")
            for number, steps in enumerate(lanes)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            # What is under way is let end, so that it removes what it made.
            self._stop.set()
            for thread in threads:
                thread.join()
            raise
        return [check for checks in found for check in checks]

    def _perform_one(self, step: Step) -> list[Check]:
        say = About(step.group)
        started_ns = time.monotonic_ns()
        if self._stop.is_set():
            return [say.untried(step.name, "interrupted")]
        if started_ns >= self._ends_at_ns:
            return [say.untried(step.name, "the time for the whole examination was used up")]
        if self._tell is not None:
            self._tell(step)
        checks = self._bounded(step)
        elapsed_ns = time.monotonic_ns() - started_ns
        return [replace(check, elapsed_ns=elapsed_ns) for check in checks]

    def _bounded(self, step: Step) -> list[Check]:
        found: list[Check] = []
        failed: list[Exception] = []

        def look() -> None:
            try:
                # It takes them one by one: what came before a failure or the deadline stays.
                found.extend(step.look())
            except Exception as error:  # noqa: BLE001 - one check that fails must not hide the rest
                failed.append(error)

        thread = threading.Thread(target=look, name=f"seatrial-check-{step.group}", daemon=True)
        thread.start()
        thread.join(step.deadline_ns / NS_PER_S)
        say = About(step.group)
        if thread.is_alive():
            late = say.broken(
                step.name,
                f"no answer within {format_duration(step.deadline_ns)}",
                so="whatever needs it may hang as well",
                fix="look at the kernel's log (dmesg), and try again",
            )
            return [*found, late]
        found.extend(
            say.broken(
                step.name,
                f"{type(error).__name__}: {error}",
                so="it is not known whether this works",
                fix=getattr(error, "hint", None) or "try again; please report it if it stays",
            )
            for error in failed
        )
        return found
