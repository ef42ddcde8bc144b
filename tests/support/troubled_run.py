"""Runs `seatrial` and makes trouble at a named point of one trial, always the same one.

Usage: python -m tests.support.troubled_run TROUBLE POINT DRIVER:NUMBER WORDS...

TROUBLE is `full:DIR` (the file system at DIR has no room left, neither for bytes nor for names,
until the trial is over), `full-for-good:DIR` (it stays so, and in later trials of the driver what
was freed is taken again), `kill:NAME` (our processes of that name are killed) or `freeze:NAME`
(they are stopped). POINT is `measure` (that phase begins), `batch` (a batch of sandboxes is about
to be started), `within` (it is under way) or `held` (it is up, and held). The trial is the driver's
NUMBERth, counted from 1.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.cli import main
from seatrial.launch.client import Launcher
from seatrial.model.trial import Phase
from seatrial.probes import leaks
from seatrial.run.trial import TrialPerformer

if TYPE_CHECKING:
    from collections.abc import Callable

FILLER = "filler"
#: A batch of pods or of an engine's containers takes several times as long.
INTO_BATCH_S = 0.15
LOOKS_COUNT, LOOK_PAUSE_S = 1000, 0.002


def fill(place: Path) -> None:
    """Takes all the room that is left, and then all the names."""
    folder = place / FILLER
    folder.mkdir(exist_ok=True)
    for size in (1 << 20, 4096):
        with contextlib.suppress(OSError), (folder / f"{size}").open("ab", buffering=0) as file:
            while file.write(b"x" * size):
                pass
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            (folder / f"n{number}").touch()


def free(place: Path) -> None:
    """Gives it back."""
    folder = place / FILLER
    for path in folder.iterdir() if folder.is_dir() else ():
        path.unlink()
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def send(number: signal.Signals, name: str) -> None:
    """Sends a signal to the processes of this run that have a name, as soon as there are any."""
    for _ in range(LOOKS_COUNT):
        if pids := called(name):
            break
        threading.Event().wait(LOOK_PAUSE_S)
    else:
        raise AssertionError(f"nobody is called {name}")
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def called(name: str) -> list[int]:
    """The processes of this run that have a name."""
    # An engine's monitor has not our environment, so it is told by its command line.
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if leaks.process_name(pid) == name and _is_ours(pid)]


def _is_ours(pid: int) -> bool:
    """Whether a process was told our own directory for what runs make on the machine."""
    mark, told = os.environ["XDG_RUNTIME_DIR"].encode(), b""
    with contextlib.suppress(OSError):
        told = b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))
    return mark in told


class Trap:
    """Waits for the trial, and springs once in it."""

    def __init__(
        self, point: str, trial: str, spring: Callable[[], None], *, is_lasting: bool
    ) -> None:
        self._point = point
        self._driver, _, number = trial.rpartition(":")
        self._left_count = int(number)
        self._spring = spring
        self._is_lasting = is_lasting
        self._phase: Phase | None = None

    def begin(self, driver: str) -> bool:
        """Counts a trial that begins; True: it is the one."""
        self._left_count -= driver == self._driver
        is_due = self._left_count == 0 or (self._is_lasting and self._left_count < 0)
        return driver == self._driver and is_due

    def enter(self, phase: Phase) -> None:
        """A phase of that trial begins."""
        self._phase = phase
        if self._point == "measure" and phase is Phase.MEASURE:
            self._spring()

    def springs_at(self, point: str, goal: object) -> bool:
        """Whether a batch is the one; the floor's waits for no reply."""
        is_due = self._phase is Phase.MEASURE and goal == "reply" and point == self._point
        if is_due:
            self._phase = None
        return is_due

    def go_off(self) -> None:
        """Make the trouble."""
        self._spring()


def install(trap: Trap, restore: Callable[[], None]) -> None:
    """Hooks the trap into trials and batches."""
    perform, start = TrialPerformer.perform, Launcher.start

    def performed(self: TrialPerformer) -> object:
        if not trap.begin(self._spec.driver):
            return perform(self)
        on_phase = self._on_phase

        def observed(phase: Phase) -> None:
            on_phase(phase)
            trap.enter(phase)

        self._on_phase = observed
        try:
            return perform(self)
        finally:
            restore()

    def started(self: Launcher, *args: object, **settings: object) -> object:
        goal = settings.get("wait_for")
        if trap.springs_at("batch", goal):
            trap.go_off()
        if trap.springs_at("within", goal):
            threading.Timer(INTO_BATCH_S, trap.go_off).start()
        done = start(self, *args, **settings)
        if trap.springs_at("held", goal):
            trap.go_off()
        return done

    TrialPerformer.perform = performed
    Launcher.start = started


def main_with_trouble(trouble: str, point: str, trial: str, words: list[str]) -> int:
    """Runs the command with one trap set."""
    kind, _, detail = trouble.partition(":")
    springs: dict[str, Callable[[], None]] = {
        "full": lambda: fill(Path(detail)),
        "full-for-good": lambda: fill(Path(detail)),
        "kill": lambda: send(signal.SIGKILL, detail),
        "freeze": lambda: send(signal.SIGSTOP, detail),
    }

    def spring() -> None:
        springs[kind]()
        sys.stderr.write(f"trouble: {trouble}\n")

    restore = (lambda: free(Path(detail))) if kind == "full" else (lambda: None)
    install(Trap(point, trial, spring, is_lasting=kind == "full-for-good"), restore)
    return main.main(words)


if __name__ == "__main__":
    sys.exit(main_with_trouble(*sys.argv[1:4], sys.argv[4:]))
