"""Performs one trial: carries out what the lifecycle orders and turns trouble into data."""

from __future__ import annotations

import signal
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from seatrial.errors import DriverUnavailable, NoRoom, SeatrialError
from seatrial.model.finding import Finding, Severity
from seatrial.model.trial import Phase, TrialOutcome, TrialStatus
from seatrial.run.lifecycle import (
    Begin,
    DeadlinePassed,
    Event,
    Finish,
    Interrupt,
    Lifecycle,
    PhaseDone,
    PhaseFailed,
    RunPhase,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from seatrial.benches.base import BenchTrial
    from seatrial.model.plan import TrialSpec

NS_PER_S = 1_000_000_000
TRACE_CHARACTERS_MAX = 4000
UNSUPPORTED = "unsupported"
"""The code of an error by which a driver says that it lacks a power, and always will."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class PhaseOverrun(Exception):
    """A phase ran past its deadline."""


@contextmanager
def phase_deadline(timeout_ns: int) -> Iterator[None]:
    """Raises ``PhaseOverrun`` in the main thread after ``timeout_ns``.

    Every wait below has a bound of its own; this one catches the bug in a bound.
    """

    def overrun(_number: int, _frame: FrameType | None) -> None:
        raise PhaseOverrun

    previous = signal.signal(signal.SIGALRM, overrun)
    signal.setitimer(signal.ITIMER_REAL, timeout_ns / NS_PER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def interrupts_noted(note: Callable[[], None]) -> Iterator[None]:
    """Keeps Ctrl-C from breaking into the body; ``note`` is called instead.

    A teardown that is cut short leaves sandboxes behind, so it is finished first; it is bounded.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        note()

    previous = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class TrialPerformer:
    """Runs the phases of one bench trial under its lifecycle."""

    def __init__(
        self,
        spec: TrialSpec,
        trial: BenchTrial,
        *,
        on_phase: Callable[[Phase], None],
    ) -> None:
        self._spec = spec
        self._trial = trial
        self._on_phase = on_phase
        self._lifecycle = Lifecycle()
        self._findings: list[Finding] = []
        self.stop_was_asked = False

    def perform(self) -> TrialOutcome:
        """Returns the outcome with whatever tables were filled, however the trial ended."""
        pending = self._lifecycle.handle(Begin())
        while pending:
            instruction = pending.pop(0)
            if isinstance(instruction, Finish):
                return self._outcome(instruction)
            pending += self._lifecycle.handle(self._run(instruction))
        raise RuntimeError("the lifecycle ended without Finish")

    def _run(self, instruction: RunPhase) -> Event:
        phase = instruction.phase
        self._on_phase(phase)
        try:
            with ExitStack() as stack:
                if phase is Phase.TEARDOWN:
                    stack.enter_context(interrupts_noted(self._note_stop))
                stack.enter_context(phase_deadline(instruction.deadline_ns))
                self._phase(phase)()
        except PhaseOverrun:
            return DeadlinePassed()
        except KeyboardInterrupt:
            return Interrupt()
        except SeatrialError as error:
            return self._failed(error, phase)
        except Exception as error:  # noqa: BLE001 - becomes a finding with its traceback
            self._note(error, phase, trace=traceback.format_exc()[-TRACE_CHARACTERS_MAX:])
            return PhaseFailed(error=f"{type(error).__name__}: {error}")
        return PhaseDone()

    def _failed(self, error: SeatrialError, phase: Phase) -> PhaseFailed:
        if isinstance(error, DriverUnavailable) or error.code == UNSUPPORTED:
            return PhaseFailed(error=str(error), status=TrialStatus.UNSUPPORTED)
        if isinstance(error, NoRoom):
            advice = f"; {error.hint}" if error.hint else ""
            return PhaseFailed(error=f"{error}{advice}", status=TrialStatus.SKIPPED)
        self._note(error, phase)
        return PhaseFailed(error=str(error))

    def _note_stop(self) -> None:
        self.stop_was_asked = True

    def _phase(self, phase: Phase) -> Callable[[], None]:
        trial = self._trial
        return {
            Phase.SETUP: trial.set_up,
            Phase.WARM_UP: trial.warm_up,
            Phase.MEASURE: trial.measure,
            Phase.DRAIN: trial.drain,
            Phase.TEARDOWN: trial.tear_down,
        }[phase]

    def _note(self, error: Exception, phase: Phase, *, trace: str = "") -> None:
        evidence: dict[str, str] = {"phase": phase.value}
        if trace:
            evidence["traceback"] = trace
        hint = getattr(error, "hint", None)
        if hint:
            evidence["hint"] = str(hint)
        self._findings.append(
            Finding(
                code="trial-failed",
                severity=Severity.ERROR,
                message=f"{phase.value}: {error}",
                evidence=evidence,
            )
        )

    def _outcome(self, finish: Finish) -> TrialOutcome:
        owned = [
            replace(
                finding,
                trial_id=finding.trial_id or self._spec.trial_id,
                driver=finding.driver or self._spec.driver,
            )
            for finding in (*self._findings, *self._trial.findings)
        ]
        return TrialOutcome(
            trial_id=self._spec.trial_id,
            status=finish.status,
            reason=finish.reason,
            findings=tuple(owned),
        )
