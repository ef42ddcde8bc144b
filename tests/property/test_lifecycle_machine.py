"""Whatever order events come in, a trial's invariants hold."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seatrial.model.trial import Phase, TrialStatus
from seatrial.run.lifecycle import (
    Begin,
    DeadlinePassed,
    Event,
    Finish,
    Instruction,
    Interrupt,
    InvalidTransition,
    Lifecycle,
    PhaseDone,
    PhaseFailed,
    RunPhase,
    State,
)


class LifecycleMachine(RuleBasedStateMachine):
    """A runner that performs phases with any luck, and a user who may press Ctrl-C."""

    def __init__(self) -> None:
        super().__init__()
        self.lifecycle = Lifecycle()
        self.given: list[Instruction] = []

    def feed(self, event: Event) -> None:
        """Hand an event over: each gives exactly one instruction."""
        instructions = self.lifecycle.handle(event)
        assert len(instructions) == 1
        self.given += instructions

    @precondition(lambda self: self.lifecycle.state is State.PENDING)
    @rule()
    def begin(self) -> None:
        self.feed(Begin())

    @precondition(lambda self: not self.lifecycle.is_done)
    @rule()
    def interrupt(self) -> None:
        self.feed(Interrupt())

    @precondition(lambda self: self.lifecycle.phases and not self.lifecycle.is_done)
    @rule(
        event=st.sampled_from(
            [
                PhaseDone(),
                DeadlinePassed(),
                PhaseFailed(error="e"),
                PhaseFailed(error="u", status=TrialStatus.UNSUPPORTED),
            ]
        )
    )
    def phase_ends(self, event: Event) -> None:
        self.feed(event)

    @precondition(lambda self: self.lifecycle.is_done)
    @rule(event=st.sampled_from([Begin(), PhaseDone(), Interrupt(), DeadlinePassed()]))
    def nothing_follows_the_end(self, event: Event) -> None:
        with pytest.raises(InvalidTransition):
            self.lifecycle.handle(event)

    @invariant()
    def is_valid(self) -> None:
        self.lifecycle.validate()

    @invariant()
    def finishes_once_and_last(self) -> None:
        ends = [index for index, item in enumerate(self.given) if isinstance(item, Finish)]
        assert ends == ([len(self.given) - 1] if self.lifecycle.is_done else [])

    @invariant()
    def tears_down_once_if_set_up(self) -> None:
        ran = [item.phase for item in self.given if isinstance(item, RunPhase)]
        assert ran.count(Phase.TEARDOWN) <= 1
        if self.lifecycle.is_done and Phase.SETUP in ran:
            assert ran[-1] is Phase.TEARDOWN

    @invariant()
    def ends_soon(self) -> None:
        """At most five phases and an end: nothing goes on for ever."""
        assert len(self.given) <= 6

    @invariant()
    def an_interrupt_is_never_lost(self) -> None:
        interrupted = any(isinstance(event, Interrupt) for event, _ in self.lifecycle.story)
        for item in self.given:
            if isinstance(item, Finish):
                assert (item.status is TrialStatus.INTERRUPTED) is interrupted


TestLifecycle = LifecycleMachine.TestCase
