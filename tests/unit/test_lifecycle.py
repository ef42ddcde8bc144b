"""The life of a trial, step by step."""

from __future__ import annotations

import pytest

from seatrial.model.trial import Phase, TrialStatus
from seatrial.run.lifecycle import (
    Begin,
    DeadlinePassed,
    Event,
    Finish,
    Interrupt,
    InvalidTransition,
    Lifecycle,
    PhaseDone,
    PhaseFailed,
    RunPhase,
)

SECOND_NS = 1_000_000_000
FAILED = PhaseFailed(error="no such thing")
NEVER = PhaseFailed(error="no veth", status=TrialStatus.UNSUPPORTED)
DONE = PhaseDone()


def live(*events: Event) -> tuple[list[Phase], Finish | None]:
    """Feeds events to a new trial and gives the phases it ordered, and its end."""
    lifecycle = Lifecycle(phase_timeout_ns=90 * SECOND_NS)
    for event in (Begin(), *events):
        lifecycle.handle(event)
        lifecycle.validate()
    return lifecycle.phases, lifecycle.finishes[0] if lifecycle.finishes else None


def check(*events: Event, phases: str, status: TrialStatus, reason: str | None) -> None:
    """After the events, these phases were run and the trial ended like this."""
    ran, finish = live(*events)
    assert [phase.value for phase in ran] == phases.split()
    assert finish == Finish(status=status, reason=reason)


def test_a_good_life() -> None:
    """All phases in their order, then the end."""
    check(
        *[DONE] * 5,
        phases="setup warm-up measure drain teardown",
        status=TrialStatus.OK,
        reason=None,
    )


@pytest.mark.parametrize(
    ("events", "phases", "status", "reason"),
    [
        ([FAILED, DONE], "setup teardown", "failed", "setup: no such thing"),
        ([NEVER, DONE], "setup teardown", "unsupported", "setup: no veth"),
        (
            [DONE, DONE, FAILED, DONE],
            "setup warm-up measure teardown",
            "failed",
            "measure: no such thing",
        ),
        (
            [DONE, DeadlinePassed(), DONE],
            "setup warm-up teardown",
            "failed",
            "warm-up: not done within 1.50 min",
        ),
        (
            [FAILED, FAILED],
            "setup teardown",
            "failed",
            "setup: no such thing; then teardown: no such thing",
        ),
        (
            [NEVER, FAILED],
            "setup teardown",
            "unsupported",
            "setup: no veth; then teardown: no such thing",
        ),
        (
            [DONE] * 4 + [FAILED],
            "setup warm-up measure drain teardown",
            "failed",
            "teardown: no such thing",
        ),
        (
            [DONE] * 4 + [DeadlinePassed()],
            "setup warm-up measure drain teardown",
            "failed",
            "teardown: not done within 1.50 min",
        ),
        (
            [DONE, DONE, Interrupt(), DONE],
            "setup warm-up measure teardown",
            "interrupted",
            "interrupted in measure",
        ),
        (
            [FAILED, Interrupt()],
            "setup teardown",
            "interrupted",
            "setup: no such thing; then interrupted in teardown",
        ),
    ],
)  # fmt: skip - one case a row
def test_troubles(events: list[Event], phases: str, status: str, reason: str) -> None:
    """Whatever fails, teardown follows once; the first trouble names the status."""
    check(*events, phases=phases, status=TrialStatus(status), reason=reason)


def test_interrupted_before_it_began() -> None:
    """What was never set up is not torn down."""
    lifecycle = Lifecycle()
    (finish,) = lifecycle.handle(Interrupt())
    assert finish == Finish(status=TrialStatus.INTERRUPTED, reason="interrupted in pending")
    lifecycle.validate()
    assert lifecycle.phases == []
    assert lifecycle.is_done


def test_phases_have_a_deadline() -> None:
    """Every phase is bounded, teardown too."""
    lifecycle = Lifecycle(phase_timeout_ns=5)
    orders = [*lifecycle.handle(Begin()), *lifecycle.handle(FAILED)]
    assert orders == [
        RunPhase(phase=Phase.SETUP, deadline_ns=5),
        RunPhase(phase=Phase.TEARDOWN, deadline_ns=5),
    ]


@pytest.mark.parametrize(
    ("before", "event"),
    [
        ([], PhaseDone()),
        ([], FAILED),
        ([Begin()], Begin()),
        ([Begin(), FAILED, DONE], PhaseDone()),
        ([Begin(), FAILED, DONE], Interrupt()),
    ],
)
def test_impossible_events(before: list[Event], event: Event) -> None:
    """A runner's bug is reported with the history that led to it."""
    lifecycle = Lifecycle()
    for past in before:
        lifecycle.handle(past)
    with pytest.raises(InvalidTransition, match="so far: ") as caught:
        lifecycle.handle(event)
    assert caught.value.code == "lifecycle"
    lifecycle.validate()
