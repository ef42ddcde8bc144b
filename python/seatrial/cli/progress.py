"""The progress bar of a run, on standard error: trials done, what runs now, time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from seatrial.model.trial import TrialStatus
from seatrial.units import format_duration

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from seatrial.model.plan import Plan, TrialSpec
    from seatrial.model.trial import Phase, TrialOutcome

NS_PER_S = 1_000_000_000


class Bar:
    """Draws on a terminal; without one it writes a line a trial that did not end well."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description:<44.44}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            refresh_per_second=4,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None, left="")
        self._estimated_ns = 0
        self._trials_count = 0
        self._done_count = 0
        self._started_ns = time.monotonic_ns()
        self._done_here_count = 0

    def __enter__(self) -> Self:
        """Begins to draw."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clears the bar."""
        self._bar.stop()

    def run_started(self, plan: Plan, finished_count: int) -> None:
        """Sets the scale."""
        self._estimated_ns = plan.estimated_ns
        self._trials_count = len(plan.trials)
        self._done_count = finished_count
        self._started_ns = time.monotonic_ns()
        self._bar.update(
            self._task, total=self._trials_count, completed=finished_count, left=self._left()
        )

    def trial_started(self, spec: TrialSpec) -> None:
        """Says what runs."""
        self._bar.update(self._task, description=f"{spec.driver}: {spec.point.key}")

    def phase_started(self, spec: TrialSpec, phase: Phase) -> None:
        """Says in which phase it is."""
        self._bar.update(self._task, description=f"{spec.driver}: {spec.point.key} [{phase}]")

    def trial_finished(self, spec: TrialSpec, outcome: TrialOutcome, elapsed_ns: int) -> None:
        """Advances; a trial that did not end well gets a line that stays."""
        self._done_count += 1
        self._done_here_count += 1
        self._bar.update(self._task, completed=self._done_count, left=self._left())
        if outcome.status is not TrialStatus.OK:
            self._console.print(
                f"{spec.trial_id} {spec.driver}: {spec.point.key}: {outcome.status} after "
                f"{format_duration(elapsed_ns)}: {outcome.reason}",
                markup=False,
            )

    def _left(self) -> str:
        """Estimates by the plan first, then by the trials of this call."""
        left_count = self._trials_count - self._done_count
        if self._done_here_count == 0:
            left_ns = self._estimated_ns * left_count // max(self._trials_count, 1)
        else:
            spent_ns = time.monotonic_ns() - self._started_ns
            left_ns = spent_ns * left_count // self._done_here_count
        return f"about {format_duration(left_ns // NS_PER_S * NS_PER_S)} left"
