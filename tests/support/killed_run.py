"""Runs `seatrial` and kills it with SIGKILL at a named point, always the same one.

Usage: python -m tests.support.killed_run POINT WORDS...

POINT is `phase:NAME` (that phase begins), `batch` (a batch of sandboxes is under way),
`store:before` (a trial is written but not yet in its place) or `store:after` (it is in its place
but not yet in the journal).
The first trial is left alone, so that there is something to be kept.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from seatrial.cli import main
from seatrial.launch.client import Launcher
from seatrial.run.trial import TrialPerformer
from seatrial.store.journal import JournalWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from seatrial.model.trial import Phase

#: A batch of several sandboxes takes longer than this, and less than a second.
INTO_BATCH_S = 0.004
trials_begun_count = 0


def die() -> NoReturn:
    """Ends this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL returned")


def count_trials(action: Callable[[Phase], None]) -> None:
    """Calls `action` at the begin of each phase of every trial but the first."""
    perform = TrialPerformer.perform

    def counted(self: TrialPerformer) -> object:
        global trials_begun_count  # noqa: PLW0603 - one counter for the hooks of one short program
        trials_begun_count += 1
        on_phase = self._on_phase

        def observed(phase: Phase) -> None:
            on_phase(phase)
            if trials_begun_count > 1:
                action(phase)

        self._on_phase = observed
        return perform(self)

    TrialPerformer.perform = counted


def kill_in_phase(name: str) -> None:
    """Kills when a phase begins."""
    count_trials(lambda phase: die() if phase.value == name else None)


def kill_in_batch() -> None:
    """Kills a moment after a batch was handed to the launcher."""
    start = Launcher.start

    def started(self: Launcher, *args: object, **settings: object) -> object:
        if trials_begun_count > 1:
            threading.Timer(INTO_BATCH_S, die).start()
        return start(self, *args, **settings)

    Launcher.start = started
    count_trials(lambda _phase: None)


def kill_before_rename() -> None:
    """Kills when a whole trial is about to be renamed into its place."""
    rename = Path.rename

    def renamed(self: Path, target: str | Path) -> Path:
        if trials_begun_count > 1 and Path(target).parent.name == "trials":
            die()
        return rename(self, target)

    Path.rename = renamed
    count_trials(lambda _phase: None)


def kill_before_journal() -> None:
    """Kills when a trial is in its place but the journal does not know it yet."""
    append = JournalWriter.append

    def appended(self: JournalWriter, event: object) -> object:
        if trials_begun_count > 1 and getattr(event, "kind", None) == "trial-finished":
            die()
        return append(self, event)

    JournalWriter.append = appended
    count_trials(lambda _phase: None)


def install(point: str) -> None:
    """Arms the trap."""
    kind, _, detail = point.partition(":")
    traps: dict[str, Callable[[], None]] = {
        "phase": lambda: kill_in_phase(detail),
        "batch": kill_in_batch,
        "store": {"before": kill_before_rename, "after": kill_before_journal}.get(detail, die),
    }
    traps[kind]()


if __name__ == "__main__":
    install(sys.argv[1])
    sys.exit(main.main(sys.argv[2:]))
