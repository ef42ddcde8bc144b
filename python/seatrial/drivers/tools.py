"""Where the tools are that Seatrial's own set-up builds, ahead of what the system brings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

RUNSC_VARIABLE: Final = "SEATRIAL_RUNSC"
TOOLS_SUBDIRECTORY: Final = "seatrial/tools"


def tools_directory() -> Path:
    """Give the directory of the tools; it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / TOOLS_SUBDIRECTORY


def runsc_candidates() -> tuple[Path, ...]:
    """Give where runsc is looked for ahead of PATH."""
    named = os.environ.get(RUNSC_VARIABLE)
    own = tools_directory() / "runsc"
    return (Path(named), own) if named else (own,)
