"""The journal of a run: one JSON object a line, only ever appended to, durable before we go on.

A process that is killed while it appends leaves a torn last line. Reading passes over it and says
so; the next writer cuts it off and notes that it did.
"""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from seatrial.errors import StoreError
from seatrial.model.codec import Json, decode, encode
from seatrial.model.finding import Finding
from seatrial.model.trial import TrialStatus
from seatrial.store.files import translated

# Enough of a torn line to see what it was about.
TORN_CHARACTERS_KEPT: Final = 200


class EventKind(StrEnum):
    """What can happen to a run."""

    RUN_STARTED = "run-started"
    RUN_RESUMED = "run-resumed"
    RUN_INTERRUPTED = "run-interrupted"
    RUN_FINISHED = "run-finished"
    TRIAL_STARTED = "trial-started"
    TRIAL_FINISHED = "trial-finished"
    SENTINEL = "sentinel"
    JOURNAL_REPAIRED = "journal-repaired"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the journal."""

    kind: EventKind
    trial_id: str | None = None
    status: TrialStatus | None = None
    reason: str | None = None
    findings: tuple[Finding, ...] = ()
    # Anything else worth keeping, under names that carry their unit.
    details: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    # Wall-clock time since 1970 (ns); None until the event is appended, which stamps it.
    at_unix_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalContent:
    """What was read from a journal."""

    events: tuple[Event, ...]
    # The rest of a line that was never finished; None when the journal ends well.
    torn: str | None = None


def to_line(event: Event) -> str:
    """Write an event as one line, without what it does not say."""
    encoded = encode(event)
    if not isinstance(encoded, dict):
        raise TypeError("an event is encoded as an object")
    said = {name: value for name, value in encoded.items() if value not in (None, [], {})}
    return json.dumps(said, ensure_ascii=False, allow_nan=False) + "\n"


def read_journal(path: Path) -> JournalContent:
    """Read all events of a journal.

    Raises:
        StoreError: it cannot be read, or a line before the last one is no event.
    """
    with translated("read", path):
        data = path.read_bytes()
    *whole, rest = data.split(b"\n")
    events = [_event(line, number, path) for number, line in enumerate(whole, start=1)]
    torn = rest.decode("utf-8", errors="replace") or None
    return JournalContent(events=tuple(events), torn=torn)


class JournalWriter:
    """Appends events to a journal that it alone writes."""

    def __init__(self, path: Path) -> None:
        """Open the journal for appending, and cut off a torn last line.

        Raises:
            StoreError: it cannot be opened, or it is damaged in the middle.
        """
        self._path = path
        with translated("open", path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._end = os.fstat(self._descriptor).st_size
        try:
            self._repair()
        except BaseException:
            self.close()
            raise

    def append(self, event: Event) -> None:
        """Append an event, stamped with the time of day, and make it durable.

        Raises:
            StoreError: it cannot be written; then nothing of it is in the journal.
        """
        stamped = event
        if event.at_unix_ns is None:
            stamped = dataclasses.replace(event, at_unix_ns=time.time_ns())
        line = to_line(stamped).encode()
        with translated("append to", self._path):
            try:
                self._write(line)
            except OSError:
                # A full disk takes a part of the line: take it back.
                os.ftruncate(self._descriptor, self._end)
                raise
        self._end += len(line)

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, line: bytes) -> None:
        written = 0
        while written < len(line):
            written += os.pwrite(self._descriptor, line[written:], self._end + written)
        os.fsync(self._descriptor)

    def _repair(self) -> None:
        if self._end == 0:
            return
        torn = read_journal(self._path).torn
        if torn is None:
            return
        with translated("repair", self._path):
            data = self._path.read_bytes()
            self._end = data.rfind(b"\n") + 1
            os.ftruncate(self._descriptor, self._end)
        self.append(
            Event(
                kind=EventKind.JOURNAL_REPAIRED,
                details={"torn_line": torn[:TORN_CHARACTERS_KEPT]},
            )
        )


def _event(line: bytes, number: int, path: Path) -> Event:
    try:
        value: Json = json.loads(line)
    except ValueError as error:
        raise StoreError(
            f"{path}:{number}: no valid JSON: {error}",
            hint="the journal was changed by something else than Seatrial",
            code="journal-broken",
        ) from error
    return decode(Event, value, where=f"{path.name}:{number}")
