"""The life of a trial as a pure state machine: events in, instructions out.

No I/O and no clock: events carry the instant at which they happened. The runner performs the
instructions and reports what became of them. What holds whatever happens, and is re-checked by
``validate``: once set-up has begun, teardown runs exactly once; ``Finish`` comes exactly once and
last; phases never repeat or go backwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from seatrial.errors import SeatrialError
from seatrial.model.trial import Phase, TrialStatus
from seatrial.units import NS_PER_MIN, format_duration


class State(StrEnum):
    """Where a trial is: not begun, in one of its phases, or over."""

    PENDING = "pending"
    SETUP = "setup"
    WARM_UP = "warm-up"
    MEASURE = "measure"
    DRAIN = "drain"
    TEARDOWN = "teardown"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The trial's turn has come."""

    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDone:
    """A phase came to its good end."""

    phase: Phase
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFailed:
    """A phase could not be completed. ``status`` may say that it never can: UNSUPPORTED."""

    phase: Phase
    at_ns: int
    error: str
    status: TrialStatus = TrialStatus.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """The user wants to stop. The phase under way is given up, except for teardown."""

    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """A phase did not end in its time and was given up."""

    phase: Phase
    at_ns: int


Event: TypeAlias = Begin | PhaseDone | PhaseFailed | Interrupt | DeadlinePassed


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPhase:
    """Perform a phase, and give it up at ``deadline_ns`` on the clock of the events."""

    phase: Phase
    deadline_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The trial is over; store it."""

    status: TrialStatus
    # Why it is not ok; None when it is.
    reason: str | None


Instruction: TypeAlias = RunPhase | Finish

# How long each phase may take. Far above what a healthy trial needs: a deadline is there so that a
# hanging runtime cannot stop a run for ever. The bench's own settings bound the phases first.
BUDGETS_NS: Final[Mapping[Phase, int]] = {
    Phase.SETUP: 10 * NS_PER_MIN,
    Phase.WARM_UP: 10 * NS_PER_MIN,
    Phase.MEASURE: 60 * NS_PER_MIN,
    Phase.DRAIN: 10 * NS_PER_MIN,
    Phase.TEARDOWN: 10 * NS_PER_MIN,
}

_ORDER: Final = tuple(Phase)


class InvalidTransition(SeatrialError):
    """An event came that cannot happen in this state: a bug of the runner."""

    default_code = "lifecycle"


class Lifecycle:
    """One trial's state. Changed by ``handle`` alone."""

    def __init__(self, *, budgets_ns: Mapping[Phase, int] | None = None) -> None:
        """Begin in PENDING; ``budgets_ns`` replaces the time that some phases may take."""
        self._budgets_ns = {**BUDGETS_NS, **(budgets_ns or {})}
        self.state = State.PENDING
        # The phases that were ordered so far, in order.
        self.phases: list[Phase] = []
        self.finishes: list[Finish] = []
        # What happened, for error messages: an error explains itself by its history.
        self.story: list[tuple[Event, tuple[Instruction, ...]]] = []
        self._status = TrialStatus.OK
        self._reasons: list[str] = []
        self._interrupted_at_ns: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether ``Finish`` has been given."""
        return self.state is State.DONE

    @property
    def was_interrupted(self) -> bool:
        """Whether the user wants the run to stop, even if this trial came to a good end."""
        return self._interrupted_at_ns is not None

    def handle(self, event: Event) -> list[Instruction]:
        """Take an event and say what is to be done now; nothing means: go on waiting.

        Events about a phase that has been given up meanwhile are passed over.

        Raises:
            InvalidTransition: the event cannot happen here.
        """
        instructions = self._react(event)
        self.story.append((event, tuple(instructions)))
        for instruction in instructions:
            if isinstance(instruction, RunPhase):
                self.phases.append(instruction.phase)
            else:
                self.finishes.append(instruction)
        return instructions

    def validate(self) -> None:
        """Derive every invariant again from the history; for tests and for the end of a trial."""
        indices = [_ORDER.index(phase) for phase in self.phases]
        assert indices == sorted(set(indices)), f"phases out of order: {self.phases}"
        assert len(self.finishes) <= 1, f"finished {len(self.finishes)} times"
        assert (self.state is State.DONE) == bool(self.finishes), "finished, or is it?"
        assert (self.state is State.PENDING) == (not self.story), "begun, or is it?"
        if self.state is State.DONE and self.phases:
            assert self.phases.count(Phase.TEARDOWN) == 1, "set-up without one teardown"
        if self.state not in {State.PENDING, State.DONE}:
            assert self.phases[-1].value == self.state.value, "another phase than the state"
        for finish in self.finishes:
            assert (finish.status is TrialStatus.OK) == (finish.reason is None), "reason, or not"
            is_complete = tuple(self.phases) == _ORDER
            assert finish.status is not TrialStatus.OK or is_complete, "ok without all phases"

    def _react(self, event: Event) -> list[Instruction]:
        if isinstance(event, Interrupt):
            return self._interrupt(event)
        if isinstance(event, Begin):
            if self.state is not State.PENDING:
                raise self._invalid(event)
            return [self._enter(Phase.SETUP, event.at_ns)]
        return self._phase_event(event)

    def _interrupt(self, event: Interrupt) -> list[Instruction]:
        if self._interrupted_at_ns is None:
            self._interrupted_at_ns = event.at_ns
        if self.state in {State.TEARDOWN, State.DONE}:
            # What was measured is measured, and leftovers help nobody: teardown goes on.
            return []
        self._blame(TrialStatus.INTERRUPTED, f"interrupted in {self.state}")
        if self.state is State.PENDING:
            return [self._finish()]
        return [self._enter(Phase.TEARDOWN, event.at_ns)]

    def _phase_event(self, event: PhaseDone | PhaseFailed | DeadlinePassed) -> list[Instruction]:
        if event.phase not in self.phases:
            raise self._invalid(event)
        if self.state is State.DONE or event.phase.value != self.state.value:
            # An echo of a phase that was given up.
            return []
        if isinstance(event, PhaseFailed):
            self._blame(event.status, f"{event.phase}: {event.error}")
        elif isinstance(event, DeadlinePassed):
            limit = format_duration(self._budgets_ns[event.phase])
            self._blame(TrialStatus.FAILED, f"{event.phase}: not done within {limit}")
        if event.phase is Phase.TEARDOWN:
            return [self._finish()]
        if isinstance(event, PhaseDone):
            return [self._enter(_ORDER[_ORDER.index(event.phase) + 1], event.at_ns)]
        return [self._enter(Phase.TEARDOWN, event.at_ns)]

    def _enter(self, phase: Phase, at_ns: int) -> RunPhase:
        self.state = State(phase.value)
        return RunPhase(phase=phase, deadline_ns=at_ns + self._budgets_ns[phase])

    def _finish(self) -> Finish:
        self.state = State.DONE
        reason = "; then ".join(self._reasons) or None
        return Finish(status=self._status, reason=reason)

    def _blame(self, status: TrialStatus, reason: str) -> None:
        # The first trouble gives the status; what follows from it is only told.
        if self._status is TrialStatus.OK:
            self._status = status
        self._reasons.append(reason)

    def _invalid(self, event: Event) -> InvalidTransition:
        story = ", ".join(type(past).__name__ for past, _ in self.story) or "nothing"
        return InvalidTransition(f"{event} in state {self.state}; so far: {story}")
