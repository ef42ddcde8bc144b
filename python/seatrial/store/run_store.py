"""One run's directory: create it, add trials to it, read it back, continue it after a kill.

A trial is written into a temporary directory, made durable, renamed into place, and only then
entered in the journal. So a process that is killed at any instant leaves either no trial or a whole
one; a whole one that the journal does not know yet is *recovered* by the next writer. Anybody may
read at any time; a lock on the manifest keeps it to one writer.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from seatrial.errors import StoreError
from seatrial.model.codec import Json, decode, encode
from seatrial.model.finding import Finding
from seatrial.model.scalar import Scalar
from seatrial.model.trial import TrialOutcome, TrialStatus
from seatrial.store import layout, manifest
from seatrial.store.files import (
    sync_dir,
    sync_file,
    translated,
    write_replacing,
    write_synced,
)
from seatrial.store.journal import Event, EventKind, JournalContent, JournalWriter, read_journal
from seatrial.store.manifest import Manifest
from seatrial.store.parquet import read_table, write_table


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """What ``outcome.json`` knows of a table: enough to see that its file is whole."""

    name: str
    rows_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeFile:
    """The content of ``outcome.json``: an outcome, with its tables by name instead of value."""

    trial_id: str
    status: TrialStatus
    reason: str | None
    findings: tuple[Finding, ...]
    facts: Mapping[str, Scalar]
    started_at_ns: int | None
    ended_at_ns: int | None
    tables: tuple[TableFile, ...] = field(default=())


class StoredTables(Mapping[str, pl.DataFrame]):
    """The tables of a stored trial, each read when it is asked for."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        """Keep where the tables are."""
        self._directory = directory
        self._names = tuple(names)

    def __getitem__(self, name: str) -> pl.DataFrame:
        """Read a table."""
        if name not in self._names:
            raise KeyError(name)
        return read_table(layout.table_path(self._directory, name))

    def __iter__(self) -> Iterator[str]:
        """Give the names of the tables."""
        return iter(self._names)

    def __len__(self) -> int:
        """Give the number of tables."""
        return len(self._names)


class RunStore:
    """A run directory. Reading needs no lock; the first write takes it, ``close`` gives it back."""

    def __init__(self, path: Path, content: Manifest) -> None:
        """Use ``create`` or ``open``."""
        self.path = path
        self.manifest = content
        self._lock = -1
        self._journal: JournalWriter | None = None
        # What the journal says about the end of each trial; kept up to date by the writer.
        self._ends: dict[str, TrialStatus] = {}

    @classmethod
    def create(cls, root: Path, content: Manifest) -> Self:
        """Make the directory of a new run under ``root``, with its manifest.

        Raises:
            StoreError: it exists already or cannot be written; then nothing of it is left.
        """
        path = root / content.run_id
        if layout.RUN_ID.match(content.run_id) is None:
            raise StoreError(f'run id "{content.run_id}": expected such as 20260905T120000Z-3f2a')
        with translated("create", root):
            root.mkdir(parents=True, exist_ok=True)
        with translated("create", path):
            # The directory appears under its own name only once it is whole.
            temporary = root / f"{layout.TEMPORARY_PREFIX}{content.run_id}"
            temporary.mkdir()
            try:
                (temporary / layout.TRIALS).mkdir()
                write_synced(temporary / layout.MANIFEST, manifest.to_text(content))
                write_synced(temporary / layout.JOURNAL, "")
                sync_dir(temporary)
                temporary.rename(path)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_dir(root)
        return cls(path, content)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the directory of a run.

        Raises:
            StoreError: it is none, or was made by a version that this one cannot read.
        """
        file = path / layout.MANIFEST
        if not path.is_dir():
            raise StoreError(
                f"{path} is no directory" if path.exists() else f"there is no directory {path}",
                hint="give the directory of a run, such as runs/20260905T120000Z-3f2a",
                code="run-missing",
            )
        if not layout.is_run_dir(path):
            raise StoreError(
                f"{path} is no run directory: there is no {layout.MANIFEST} in it",
                hint="give a directory such as runs/20260905T120000Z-3f2a",
                code="run-missing",
            )
        with translated("read", file):
            text = file.read_text("utf-8")
        return cls(path, manifest.from_text(text, file))

    # --- reading

    def journal(self) -> JournalContent:
        """Read the journal as far as it is whole; ``torn`` tells of a line cut off by a kill."""
        return read_journal(self.path / layout.JOURNAL)

    def finished_trials(self) -> set[str]:
        """Give the trials that a resumed run leaves alone.

        A trial counts when its directory is whole, its status is final, and the journal, if it
        knows the trial's end, says the same.
        """
        ends = _ends_in(self.journal().events)
        return {trial_id for trial_id, _ in self._finished(ends)}

    def outcomes(self) -> dict[str, TrialOutcome]:
        """Give the stored trials, interrupted ones included, in the order of the plan.

        Their tables are read one by one, when they are asked for.
        """
        found: dict[str, TrialOutcome] = {}
        for spec in self.manifest.plan.trials:
            stored = self._outcome_file(spec.trial_id)
            if stored is not None:
                found[spec.trial_id] = self._outcome(stored)
        return found

    def table_names(self, trial_id: str) -> tuple[str, ...]:
        """Give the names of a trial's tables."""
        stored = self._outcome_file(trial_id)
        return () if stored is None else tuple(table.name for table in stored.tables)

    def read_table(self, trial_id: str, name: str) -> pl.DataFrame:
        """Read a table of a trial.

        Raises:
            StoreError: the trial has no such table, or it cannot be read.
        """
        return read_table(layout.table_path(layout.trial_dir(self.path, trial_id), name))

    # --- writing

    def append(self, event: Event) -> None:
        """Add an event to the journal, stamped and durable."""
        self._writer().append(event)
        _note(self._ends, event)

    def write_trial(self, outcome: TrialOutcome) -> None:
        """Store a trial as a whole, then enter its end in the journal.

        A trial that was stored as interrupted is moved to ``superseded`` and replaced.

        Raises:
            StoreError: it is not in the plan, is finished already, breaks the contract of a table,
                or cannot be written; then nothing of it is to be seen.
        """
        self._writer()
        target = self._target(outcome.trial_id)
        temporary = target.with_name(f"{layout.TEMPORARY_PREFIX}{outcome.trial_id}")
        with translated("write", target):
            temporary.mkdir()
            try:
                self._fill(temporary, outcome)
                self._supersede(target)
                temporary.rename(target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_dir(target.parent)
        self.append(_end_of(outcome.trial_id, outcome.status, outcome.reason, outcome.findings))

    def recover(self) -> tuple[str, ...]:
        """Make the directory fit to go on with, and enter whole trials that the journal lacks.

        Gives the ids of those trials. Half-written directories of a killed writer are removed.
        """
        self._writer()
        recovered = []
        for trial_id, stored in tuple(self._finished(self._ends)):
            if trial_id not in self._ends:
                end = _end_of(trial_id, stored.status, stored.reason, stored.findings)
                self.append(dataclasses.replace(end, details={"is_recovered": True}))
                recovered.append(trial_id)
        return tuple(recovered)

    def annotate(self, name: str, text: str) -> Path:
        """Put a file such as a report beside the manifest, as a whole, and give its path."""
        path = self.path / name
        with translated("write", path):
            write_replacing(path, text)
        return path

    def close(self) -> None:
        """Give the lock back; harmless when nothing was written."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        """Give the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it whatever happened."""
        self.close()

    # --- the insides

    def _writer(self) -> JournalWriter:
        """Become the one writer, once: lock, clear what a killed writer left, open the journal."""
        if self._journal is None:
            self._take_lock()
            with translated("clear", self.path):
                for left in (self.path / layout.TRIALS).glob(f"{layout.TEMPORARY_PREFIX}*"):
                    shutil.rmtree(left)
            self._journal = JournalWriter(self.path / layout.JOURNAL)
            self._ends = _ends_in(self.journal().events)
        return self._journal

    def _take_lock(self) -> None:
        file = self.path / layout.MANIFEST
        with translated("open", file):
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"{self.path}: another process is writing to this run",
                hint="wait for it to end, or stop it",
                code="run-locked",
            ) from error
        self._lock = descriptor

    def _target(self, trial_id: str) -> Path:
        if all(spec.trial_id != trial_id for spec in self.manifest.plan.trials):
            raise StoreError(f"trial {trial_id} is not in the plan of run {self.manifest.run_id}")
        target = layout.trial_dir(self.path, trial_id)
        stored = self._outcome_file(trial_id)
        if stored is not None and _is_finished(stored, self._ends):
            raise StoreError(
                f"{target}: the trial is finished ({stored.status}) and is not overwritten",
                code="trial-finished",
            )
        return target

    def _fill(self, directory: Path, outcome: TrialOutcome) -> None:
        tables = []
        for name, columns in outcome.tables.items():
            path = layout.table_path(directory, name)
            rows_count = write_table(path, name, columns)
            sync_file(path)
            size_bytes = path.stat().st_size
            tables.append(TableFile(name=name, rows_count=rows_count, size_bytes=size_bytes))
        stored = OutcomeFile(
            trial_id=outcome.trial_id,
            status=outcome.status,
            reason=outcome.reason,
            findings=outcome.findings,
            facts=outcome.facts,
            started_at_ns=outcome.started_at_ns,
            ended_at_ns=outcome.ended_at_ns,
            tables=tuple(tables),
        )
        text = json.dumps(encode(stored), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_synced(directory / layout.OUTCOME, text)
        sync_dir(directory)

    def _supersede(self, target: Path) -> None:
        """Move a directory that is in the way aside: what was measured is kept."""
        if not target.exists():
            return
        place = self.path / layout.SUPERSEDED
        place.mkdir(exist_ok=True)
        number = 1 + sum(1 for _ in place.glob(f"{target.name}.*"))
        target.rename(place / f"{target.name}.{number}")
        sync_dir(place)

    def _finished(self, ends: Mapping[str, TrialStatus]) -> Iterator[tuple[str, OutcomeFile]]:
        for spec in self.manifest.plan.trials:
            stored = self._outcome_file(spec.trial_id)
            if stored is not None and _is_finished(stored, ends):
                yield spec.trial_id, stored

    def _outcome_file(self, trial_id: str) -> OutcomeFile | None:
        """Read what a trial says about itself; None when its directory is missing or not whole."""
        directory = layout.trial_dir(self.path, trial_id)
        file = directory / layout.OUTCOME
        try:
            value: Json = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            # Our own writer cannot leave this behind; a file system that lost data can.
            return None
        except OSError as error:
            raise StoreError(f"cannot read {file}: {error.strerror}") from error
        stored = decode(OutcomeFile, value, where=f"{trial_id}/{layout.OUTCOME}")
        is_whole = stored.trial_id == trial_id and all(
            _size(layout.table_path(directory, table.name)) == table.size_bytes
            for table in stored.tables
        )
        return stored if is_whole else None

    def _outcome(self, stored: OutcomeFile) -> TrialOutcome:
        directory = layout.trial_dir(self.path, stored.trial_id)
        return TrialOutcome(
            trial_id=stored.trial_id,
            status=stored.status,
            reason=stored.reason,
            findings=stored.findings,
            tables=StoredTables(directory, [table.name for table in stored.tables]),
            facts=stored.facts,
            started_at_ns=stored.started_at_ns,
            ended_at_ns=stored.ended_at_ns,
        )


def find_runs(root: Path) -> tuple[Path, ...]:
    """Give the run directories under ``root``, oldest first."""
    if not root.is_dir():
        return ()
    return tuple(sorted(path for path in root.iterdir() if layout.is_run_dir(path)))


def _is_finished(stored: OutcomeFile, ends: Mapping[str, TrialStatus]) -> bool:
    return stored.status.is_final and ends.get(stored.trial_id, stored.status) is stored.status


def _ends_in(events: Iterable[Event]) -> dict[str, TrialStatus]:
    ends: dict[str, TrialStatus] = {}
    for event in events:
        _note(ends, event)
    return ends


def _note(ends: dict[str, TrialStatus], event: Event) -> None:
    """Keep the last end of a trial; when it is started again, that end no longer holds."""
    if event.trial_id is None:
        return
    if event.kind is EventKind.TRIAL_STARTED:
        ends.pop(event.trial_id, None)
    elif event.kind is EventKind.TRIAL_FINISHED and event.status is not None:
        ends[event.trial_id] = event.status


def _end_of(
    trial_id: str, status: TrialStatus, reason: str | None, findings: tuple[Finding, ...]
) -> Event:
    return Event(
        kind=EventKind.TRIAL_FINISHED,
        trial_id=trial_id,
        status=status,
        reason=reason,
        findings=findings,
    )


def _size(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return None
