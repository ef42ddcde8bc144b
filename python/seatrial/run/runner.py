"""Runs a plan: one trial after another, each in the store before the next begins.

The runner owns what trials share (the sentinel, the books of the own CPU, the scratch disk) and
everything a trial opened; it reads clocks only for the progress display and trial boundaries.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from seatrial.benches import registry as benches
from seatrial.benches.background import BackgroundPool, wanted_by
from seatrial.benches.base import TrialContext
from seatrial.errors import DriverUnavailable, SeatrialError
from seatrial.model.columns import TABLES
from seatrial.model.finding import Finding, Severity
from seatrial.model.trial import TrialOutcome, TrialStatus
from seatrial.probes.noise import NoiseMonitor
from seatrial.run.neighbours import neighbour_finding, other_runs
from seatrial.run.own_cpu import OwnCpu
from seatrial.run.progress import Progress, Silent
from seatrial.run.sentinel import Sentinel
from seatrial.run.trial import TrialPerformer
from seatrial.store.files import translated
from seatrial.store.journal import Event, EventKind

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.benches.background import Background
    from seatrial.benches.base import BenchTrial, Row, TrialTables
    from seatrial.drivers.base import DriverSession
    from seatrial.model.plan import Plan, TrialSpec
    from seatrial.model.trial import Columns
    from seatrial.store.run_store import RunStore

SCRATCH = "scratch"

OpenSession = Callable[[str, int], "DriverSession"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended."""

    was_interrupted: bool
    counts: Mapping[TrialStatus, int]
    """Trials by status, of this call only."""
    elapsed_ns: int


class Runner:
    """Performs the trials of a plan that the store does not hold yet.

    ``open_session`` opens a session of a driver by its name and the trial's seed;
    ``run_cgroup_cpu_ns`` reads the run's top cgroup (None without cgroups).
    """

    def __init__(
        self,
        plan: Plan,
        store: RunStore,
        *,
        open_session: OpenSession,
        run_cgroup_cpu_ns: Callable[[], int | None],
        run_id: str,
        progress: Progress | None = None,
    ) -> None:
        self._plan = plan
        self._store = store
        self._open_session = open_session
        self._run_id = run_id
        self._progress = progress or Silent()
        self._stop_was_asked = False
        self._own_cpu = OwnCpu(run_cgroup_cpu_ns=run_cgroup_cpu_ns)
        # Kept from trial to trial, so it is no trial's own.
        self._pool = BackgroundPool(lambda name, stack: self._session(name, 0, stack))

    def run(self) -> RunReport:
        """Runs what is left of the plan; Ctrl-C ends it after the current teardown.

        Raises:
            StoreError: a trial could not be written; finished ones are safe.
        """
        started_ns = time.monotonic_ns()
        finished = self._store.finished_trials()
        left = [spec for spec in self._plan.trials if spec.trial_id not in finished]
        counts: dict[TrialStatus, int] = {}
        self._progress.run_started(self._plan, len(finished))
        was_interrupted = False
        kind = EventKind.RUN_RESUMED if finished else EventKind.RUN_STARTED
        self._store.append(Event(kind=kind))
        with ExitStack() as stack:
            sentinel = Sentinel(self._session("null", 0, stack)) if left else None
            stack.callback(self._pool.drop)
            # Not strict: where nothing is left, there is a later one but no first.
            for spec, later in zip(left, (*left[1:], None), strict=False):
                outcome = self._one(spec, sentinel, later)
                counts[outcome.status] = counts.get(outcome.status, 0) + 1
                if self._stop_was_asked or outcome.status is TrialStatus.INTERRUPTED:
                    was_interrupted = True
                    break
        kind = EventKind.RUN_INTERRUPTED if was_interrupted else EventKind.RUN_FINISHED
        self._store.append(Event(kind=kind))
        return RunReport(
            was_interrupted=was_interrupted,
            counts=counts,
            elapsed_ns=time.monotonic_ns() - started_ns,
        )

    def _session(self, driver: str, seed: int, stack: ExitStack) -> DriverSession:
        session = stack.enter_context(self._open_session(driver, seed))
        self._count_process(session.launcher.pid, stack)
        return session

    def _count_process(self, pid: int, stack: ExitStack) -> None:
        self._own_cpu.add_launcher(pid)
        stack.callback(self._own_cpu.remove_launcher, pid)

    def _one(
        self, spec: TrialSpec, sentinel: Sentinel | None, later: TrialSpec | None
    ) -> TrialOutcome:
        started_ns = time.monotonic_ns()
        self._store.append(Event(kind=EventKind.TRIAL_STARTED, trial_id=spec.trial_id))
        self._progress.trial_started(spec)
        try:
            outcome = self._perform(spec, sentinel, later)
        except KeyboardInterrupt:
            outcome = TrialOutcome(
                trial_id=spec.trial_id,
                status=TrialStatus.INTERRUPTED,
                reason="stopped by a signal",
            )
        elapsed_ns = time.monotonic_ns() - started_ns
        outcome = replace(outcome, started_at_ns=started_ns, ended_at_ns=started_ns + elapsed_ns)
        self._store.write_trial(outcome)
        self._progress.trial_finished(spec, outcome, elapsed_ns)
        return outcome

    def _perform(
        self, spec: TrialSpec, sentinel: Sentinel | None, later: TrialSpec | None
    ) -> TrialOutcome:
        """Returns the outcome with its tables; sessions are closed and audited here."""
        monitor = NoiseMonitor(own_cpu_ns=self._own_cpu.read_ns)
        sentinel_rows: Sequence[Row] = sentinel.take() if sentinel is not None else ()
        neighbour = neighbour_finding(other_runs(self._run_id))
        audited: list[Finding] = [] if neighbour is None else [neighbour]
        with ExitStack() as stack:
            scratch = scratch_dir(self._store.path, stack)
            context = TrialContext(
                run_id=self._run_id,
                spec=spec,
                experiment=self._plan.experiment,
                open_session=lambda name: self._audited_session(name, spec, stack, audited),
                window=monitor.window,
                background=lambda: self._background(spec),
                scratch_dir=scratch,
                count_process=lambda pid: self._count_process(pid, stack),
            )
            try:
                trial = benches.get(spec.point.bench).open(context)
            except DriverUnavailable as error:
                return _unsupported(spec, error)
            performer = TrialPerformer(
                spec,
                trial,
                on_phase=lambda phase: self._progress.phase_started(spec, phase),
            )
            outcome = performer.perform()
            self._stop_was_asked |= performer.stop_was_asked
            self._keep_background(spec, outcome, later, audited)
        extra = {
            "windows": [record.row() for record in monitor.records],
            "sentinel": sentinel_rows,
        }
        return replace(
            outcome,
            findings=(*outcome.findings, *audited),
            tables=_tables(trial, extra),
        )

    def _background(self, spec: TrialSpec) -> Background | None:
        wanted = wanted_by(self._plan.experiment, spec)
        return None if wanted is None else self._pool.reach(wanted)

    def _keep_background(
        self,
        spec: TrialSpec,
        outcome: TrialOutcome,
        later: TrialSpec | None,
        audited: list[Finding],
    ) -> None:
        """Removes the company that the next trial has no use for, or that a failure may have hurt.

        Nothing is kept across an interrupt either: the run may never be resumed.
        """
        if later is None or self._stop_was_asked or outcome.status is not TrialStatus.OK:
            wanted = None
        else:
            wanted = wanted_by(self._plan.experiment, later)
        try:
            leaks = self._pool.keep_for(wanted)
        except SeatrialError as error:
            audited.append(_audit_failed(spec.driver, error))
            return
        audited.extend(_leak_finding(spec.driver, f"background: {leak}") for leak in leaks)

    def _audited_session(
        self, driver: str, spec: TrialSpec, stack: ExitStack, audited: list[Finding]
    ) -> DriverSession:
        session = self._open_session(driver, spec.seed)

        def close() -> None:
            # A runtime that cannot even be closed must not take the trial's rows along.
            try:
                session.close()
            except (SeatrialError, OSError) as error:
                audited.append(_close_failed(driver, error))

        def audit() -> None:
            try:
                leaks = session.audit()
            except SeatrialError as error:
                audited.append(_audit_failed(driver, error))
                return
            audited.extend(_leak_finding(driver, str(leak)) for leak in leaks)

        stack.callback(close)
        self._count_process(session.launcher.pid, stack)
        stack.callback(audit)
        return session


def scratch_dir(run_dir: Path, stack: ExitStack) -> Path:
    """Makes an empty directory on the run's own disk; removes what a killed run left in it.

    Raises:
        StoreError: it cannot be made.
    """
    path = run_dir.resolve() / SCRATCH
    shutil.rmtree(path, ignore_errors=True)
    with translated("make", path):
        path.mkdir()
        path.chmod(0o777)  # a rootless sandbox maps to another user
    stack.callback(shutil.rmtree, path, ignore_errors=True)
    return path


def _tables(trial: BenchTrial, extra: Mapping[str, Sequence[Row]]) -> dict[str, Columns]:
    gathered: TrialTables = trial.tables
    rows: dict[str, Sequence[Row]] = {**gathered.rows, **extra}
    tables: dict[str, Columns] = {
        name: columns_of(name, taken) for name, taken in rows.items() if taken
    }
    tables.update(gathered.columns)
    return tables


def columns_of(table: str, rows: Sequence[Row]) -> dict[str, list[object]]:
    """Returns rows as the columns of a known table; what the table does not name is left out."""
    return {name: [row.get(name) for row in rows] for name in TABLES[table].names}


def _unsupported(spec: TrialSpec, error: DriverUnavailable) -> TrialOutcome:
    return TrialOutcome(trial_id=spec.trial_id, status=TrialStatus.UNSUPPORTED, reason=str(error))


def _leak_finding(driver: str, leak: str) -> Finding:
    return Finding(
        code="leftovers",
        severity=Severity.ERROR,
        message=f"{driver} left something behind: {leak}",
        evidence={"leak": leak},
        driver=driver,
    )


def _close_failed(driver: str, error: Exception) -> Finding:
    return Finding(
        code="leftovers",
        severity=Severity.ERROR,
        message=f"the session of {driver} could not be closed: {error}",
        evidence={"hint": "'seatrial clean' removes what is left once this run has ended"},
        driver=driver,
    )


def _audit_failed(driver: str, error: SeatrialError) -> Finding:
    return Finding(
        code="leftovers",
        severity=Severity.WARNING,
        message=f"the leak audit of {driver} could not be completed: {error}",
        driver=driver,
    )
