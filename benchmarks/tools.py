"""The C yardsticks, compiled when needed."""

from __future__ import annotations

from pathlib import Path

from seatrial import proc

SOURCES = Path(__file__).parent / "c"


def compiled(name: str, build: Path) -> Path:
    """Returns the program, compiled with optimisation into ``build``."""
    program = build / name
    build.mkdir(parents=True, exist_ok=True)
    source = SOURCES / f"{name}.c"
    proc.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], timeout_s=60)
    return program
