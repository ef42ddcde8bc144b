"""Calls `seatrial` as a user would: another process, its own state directory, bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

from tests.support.source import ROOT

CALL_TIMEOUT_S = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of a call."""

    code: int
    out: str
    err: str

    @property
    def shown(self) -> str:
        """Everything that a person saw, for the message of a failed assertion."""
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seatrial:
    """The command line in a directory of its own."""

    home: Path
    state: Path
    """Stands for XDG_RUNTIME_DIR; its path must be short, since sockets lie below it."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def state_root(self) -> Path:
        """Where runs keep what they make on the machine."""
        return self.state / "seatrial"

    def call(self, *words: str | Path, environment: Mapping[str, str] | None = None) -> Done:
        """Runs `seatrial WORDS` to its end."""
        return self.execute([sys.executable, "-m", "seatrial.cli.main", *words], environment)

    def execute(
        self, words: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> Done:
        """Runs a program in our directory; one that does not end is killed with its group."""
        settings = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(self.state),
            "TMPDIR": str(self.home),
            "NO_COLOR": "1",
            "COLUMNS": "100",
            "PYTHONPATH": f"{ROOT / 'python'}:{ROOT}",
            **self.environment,
            **(environment or {}),
        }
        settings.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling anew at each call takes seconds
        with subprocess.Popen(
            [str(word) for word in words],
            cwd=self.home,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=CALL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                message = f"did not end within {CALL_TIMEOUT_S} s\n{out}\n{err}"
                raise AssertionError(message) from None
        return Done(code=process.returncode, out=out, err=err)

    def experiment(self, text: str, *, name: str = "experiment.toml") -> Path:
        """Writes an experiment file."""
        path = self.home / name
        path.write_text(text)
        return path

    def runs(self) -> list[Path]:
        """The run directories under `runs/`, oldest first."""
        return sorted(path.parent for path in (self.home / "runs").glob("*/manifest.json"))
