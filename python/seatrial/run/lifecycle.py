"""The life of a trial as a pure state machine: events in, instructions out.

No I/O and no clock. The runner performs one phase at a time and reports what became of it; an event
is always about the phase that was ordered last. What holds whatever happens, and is re-checked by
``validate``: once set-up has begun, teardown runs exactly once; ``Finish`` comes exactly once and
last; phases never repeat or go backwards.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeAlias

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDone:
    """The phase came to its good end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFailed:
    """The phase could not be completed: UNSUPPORTED if the driver, SKIPPED if the host cannot."""

    error: str
    status: Literal[TrialStatus.FAILED, TrialStatus.UNSUPPORTED, TrialStatus.SKIPPED] = (
        TrialStatus.FAILED
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """The user wants to stop, and the phase was given up for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The phase did not end in its time and was given up."""


Event: TypeAlias = Begin | PhaseDone | PhaseFailed | Interrupt | DeadlinePassed


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPhase:
    """Perform a phase, and give it up ``deadline_ns`` after its begin."""

    phase: Phase
    deadline_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The trial is over; store it."""

    status: TrialStatus
    # Why it is not ok; None when it is.
    reason: str | None


Instruction: TypeAlias = RunPhase | Finish

# Far above what a healthy phase needs, whose waits are all bounded by the experiment's settings:
# it is there so that a bug in such a bound cannot stop a run for ever.
PHASE_TIMEOUT_NS: Final = 60 * NS_PER_MIN

_ORDER: Final = tuple(Phase)


class InvalidTransition(SeatrialError):
    """An event came that cannot happen in this state: a bug of the runner."""

    default_code = "lifecycle"


class Lifecycle:
    """One trial's state. Changed by ``handle`` alone."""

    def __init__(self, *, phase_timeout_ns: int = PHASE_TIMEOUT_NS) -> None:
        """Begin in PENDING; each phase may take ``phase_timeout_ns``."""
        self._phase_timeout_ns = phase_timeout_ns
        self.state = State.PENDING
        # The phases that were ordered so far, in order.
        self.phases: list[Phase] = []
        self.finishes: list[Finish] = []
        # What happened, for error messages: an error explains itself by its history.
        self.story: list[tuple[Event, Instruction]] = []
        self._status = TrialStatus.OK
        self._reasons: list[str] = []

    @property
    def is_done(self) -> bool:
        """Whether ``Finish`` has been given."""
        return self.state is State.DONE

    def handle(self, event: Event) -> list[Instruction]:
        """Take an event and say what is to be done now.

        Raises:
            InvalidTransition: the event cannot happen here.
        """
        instruction = self._react(event)
        self.story.append((event, instruction))
        if isinstance(instruction, RunPhase):
            self.phases.append(instruction.phase)
        else:
            self.finishes.append(instruction)
        return [instruction]

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

    def _react(self, event: Event) -> Instruction:
        is_begin = isinstance(event, Begin | Interrupt)
        if self.state is State.DONE or (self.state is State.PENDING and not is_begin):
            raise self._invalid(event)
        if self.state is not State.PENDING and isinstance(event, Begin):
            raise self._invalid(event)
        if isinstance(event, Interrupt):
            self._blame(TrialStatus.INTERRUPTED, f"interrupted in {self.state}")
        elif isinstance(event, PhaseFailed):
            self._blame(event.status, f"{self.state}: {event.error}")
        elif isinstance(event, DeadlinePassed):
            limit = format_duration(self._phase_timeout_ns)
            self._blame(TrialStatus.FAILED, f"{self.state}: not done within {limit}")
        return self._next(is_well=isinstance(event, Begin | PhaseDone))

    def _next(self, *, is_well: bool) -> Instruction:
        if self.state is State.PENDING:
            # Interrupted before anything was made: there is nothing to tear down.
            return self._enter(Phase.SETUP) if is_well else self._finish()
        phase = Phase(self.state.value)
        if phase is Phase.TEARDOWN:
            return self._finish()
        return self._enter(_ORDER[_ORDER.index(phase) + 1] if is_well else Phase.TEARDOWN)

    def _enter(self, phase: Phase) -> RunPhase:
        self.state = State(phase.value)
        return RunPhase(phase=phase, deadline_ns=self._phase_timeout_ns)

    def _finish(self) -> Finish:
        self.state = State.DONE
        return Finish(status=self._status, reason="; then ".join(self._reasons) or None)

    def _blame(self, status: TrialStatus, reason: str) -> None:
        # The first trouble gives the status, what follows from it is only told. An interrupt always
        # counts: the user wants the run to stop, whatever else went wrong.
        if self._status is TrialStatus.OK or status is TrialStatus.INTERRUPTED:
            self._status = status
        self._reasons.append(reason)

    def _invalid(self, event: Event) -> InvalidTransition:
        story = ", ".join(type(past).__name__ for past, _ in self.story) or "nothing"
        return InvalidTransition(f"{event} in state {self.state}; so far: {story}")
