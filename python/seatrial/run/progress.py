"""What the runner tells whoever watches; the command line draws it, tests count it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from seatrial.model.plan import Plan, TrialSpec
    from seatrial.model.trial import Phase, TrialOutcome


class Progress(Protocol):
    """Callbacks in the order of events; none may take long."""

    def run_started(self, plan: Plan, finished_count: int) -> None:
        """The run begins; ``finished_count`` trials are already in the store."""

    def trial_started(self, spec: TrialSpec) -> None:
        """A trial begins."""

    def phase_started(self, spec: TrialSpec, phase: Phase) -> None:
        """A phase of it begins."""

    def trial_finished(self, spec: TrialSpec, outcome: TrialOutcome, elapsed_ns: int) -> None:
        """It is in the store."""


class Silent:
    """Tells nobody."""

    def run_started(self, plan: Plan, finished_count: int) -> None:
        """Ignores the event."""

    def trial_started(self, spec: TrialSpec) -> None:
        """Ignores the event."""

    def phase_started(self, spec: TrialSpec, phase: Phase) -> None:
        """Ignores the event."""

    def trial_finished(self, spec: TrialSpec, outcome: TrialOutcome, elapsed_ns: int) -> None:
        """Ignores the event."""
