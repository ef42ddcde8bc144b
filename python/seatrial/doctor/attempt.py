"""Starts ``trials.py`` for one thing to try, and reads what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import proc
from seatrial.errors import ProcessFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM: Final = Path(__file__).with_name("trials.py")
TIMEOUT_S: Final = 5.0


def attempt(name: str, *, timeout_s: float = TIMEOUT_S) -> Mapping[str, str]:
    """Try it in a process of its own; give the kernel's reasons by name (empty: it works).

    Raises:
        ProcessFailed: it did not end in time (``process-timeout``), or failed otherwise.
    """
    argv = [sys.executable, "-I", "-S", str(PROGRAM), name]
    done = proc.run(argv, timeout_s=timeout_s, cwd=Path("/"))
    try:
        found = json.loads(done.text)
    except ValueError as error:
        message = f"{proc.describe(argv)}: said {done.text[:80]!r}, expected JSON"
        raise ProcessFailed(message, argv=argv) from error
    return {str(key): str(value) for key, value in found.items()}
