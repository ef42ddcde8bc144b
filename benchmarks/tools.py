"""The C yardsticks, compiled when needed."""

from __future__ import annotations

import json
from pathlib import Path

from seatrial import proc
from seatrial.errors import EnvironmentTrouble

ROOT = Path(__file__).parent.parent
SOURCES = Path(__file__).parent / "c"


def compiled(name: str, build: Path) -> Path:
    """Returns the program, compiled with optimisation into ``build``, once."""
    program = build / name
    if not program.exists():
        build.mkdir(parents=True, exist_ok=True)
        source = SOURCES / f"{name}.c"
        flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
        proc.run(["cc", *flags, "-o", str(program), str(source), "-lm"], timeout_s=60)
    return program


def read_json(text: str, *, source: str) -> dict[str, object]:
    """Returns the JSON object that a program printed.

    Raises:
        EnvironmentTrouble: it printed something else.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise EnvironmentTrouble(f"{source} printed no JSON: {text[:200]!r}") from error
    if not isinstance(found, dict):
        raise EnvironmentTrouble(f"{source} printed {text[:200]!r}; expected a JSON object")
    return found
