"""Runs `seatrial` and, in the middle of its first trial, calls `seatrial clean` from outside.

Usage: python -m tests.support.cleaned_run WORDS...
"""

from __future__ import annotations

import subprocess
import sys

from seatrial.cli import main
from seatrial.model.trial import Phase
from seatrial.run.trial import TrialPerformer


def call_clean(phase: Phase) -> None:
    """Calls `seatrial clean` when measuring begins, and says what it removed."""
    if phase is not Phase.MEASURE:
        return
    done = subprocess.run(
        [sys.executable, "-m", "seatrial.cli.main", "clean"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    sys.stderr.write(f"clean removed {done.stdout.strip() or 'nothing'}\n")


def install() -> None:
    """Hooks into the begin of each phase."""
    perform = TrialPerformer.perform

    def observed(self: TrialPerformer) -> object:
        on_phase = self._on_phase

        def both(phase: Phase) -> None:
            on_phase(phase)
            call_clean(phase)

        self._on_phase = both
        return perform(self)

    TrialPerformer.perform = observed


if __name__ == "__main__":
    install()
    sys.exit(main.main(sys.argv[1:]))
