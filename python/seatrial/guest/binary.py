"""Where the two static programs are that Seatrial brings along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from seatrial.errors import EnvironmentTrouble

#: Overrides the directory of the programs, for instance with a debug build.
DIRECTORY_VARIABLE: Final = "SEATRIAL_BIN_DIR"
GUEST_NAME: Final = "seatrial-guest"
LAUNCH_NAME: Final = "seatrial-launch"

_PACKAGE_DIRECTORY: Final = Path(__file__).resolve().parent.parent / "_bin"


def guest_binary() -> Path:
    """Absolute path of ``seatrial-guest``, the only program put inside a sandbox.

    Raises:
        EnvironmentTrouble: it was not built, or cannot be executed.
    """
    return _find(GUEST_NAME)


def launch_binary() -> Path:
    """Absolute path of ``seatrial-launch``, the small process that starts sandboxes.

    Raises:
        EnvironmentTrouble: it was not built, or cannot be executed.
    """
    return _find(LAUNCH_NAME)


def _find(name: str) -> Path:
    override = os.environ.get(DIRECTORY_VARIABLE)
    directory = Path(override).absolute() if override else _PACKAGE_DIRECTORY
    path = directory / name
    origin = f"the directory that {DIRECTORY_VARIABLE} names" if override else "the package"
    if not path.is_file():
        raise EnvironmentTrouble(
            f"{name} is not in {origin}: expected an executable at {path}",
            hint=f"run 'make build', or correct {DIRECTORY_VARIABLE}"
            if override
            else "run 'make build'",
        )
    if not os.access(path, os.X_OK):
        raise EnvironmentTrouble(
            f"{path} is not executable: its mode is {path.stat().st_mode & 0o7777:o}",
            hint=f"run 'make build', or 'chmod +x {path}'",
        )
    return path
