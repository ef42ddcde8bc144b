"""pandas: RunD's formulas the obvious way, in an interpreter that finds it beside nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.common import built, built_version

CHILD = Path(__file__).parent / "dataframes_child.py"


def argv(folder: Path) -> list[str]:
    """Returns the command that reads the trees in a directory."""
    return ["env", f"PYTHONPATH={built('pandas')}", sys.executable, str(CHILD), str(folder)]


def version() -> str:
    """Returns pandas' locked version."""
    return built_version("pandas")
