"""What the adapters of the peers share."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial import proc
from seatrial.errors import EnvironmentTrouble
from seatrial.units import DURATION_UNITS, NS_PER_S

if TYPE_CHECKING:
    from benchmarks.settings import Settings

GRACE = 60.0
OUTPUT_BYTES_MAX = 256 << 20
DURATION = re.compile(r"([\d.]+)\s*(ns|us|ms|min|m|s|h)?")


def run_pinned(
    settings: Settings, argv: list[str], *, seconds: float, input_bytes: bytes | None = None
) -> str:
    """Returns what a client printed that ran on the client's processor.

    Raises:
        ProcessFailed: it is not there, failed, or took a minute longer than it should.
    """
    done = proc.run(
        settings.for_client(argv),
        timeout_s=seconds + GRACE,
        output_bytes_max=OUTPUT_BYTES_MAX,
        input=input_bytes,
    )
    return done.text


def found(pattern: str, text: str, *, tool: str) -> str:
    """Returns the first group of a pattern that the output must hold.

    Raises:
        EnvironmentTrouble: it does not.
    """
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise EnvironmentTrouble(f"{tool}: no {pattern!r} in its output: {text[-300:]!r}")
    return match[1]


def duration_ns(text: str) -> float:
    """Returns a duration as the tools write it: `36.5us`, `1.2ms`, `3s`; without a unit, seconds.

    Raises:
        EnvironmentTrouble: it is none.
    """
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise EnvironmentTrouble(f"{text!r} is no duration; expected a number and a unit")
    unit = {"m": "min", None: "s"}.get(match[2], match[2])
    return float(match[1]) * DURATION_UNITS[unit]


def whole_seconds(seconds: float) -> int:
    """Returns a length for tools that take whole seconds only, at least 1."""
    return max(1, round(seconds))


def cache() -> Path:
    """Where the set-up keeps the peers that it builds."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "seatrial" / "tools" / "peers"


def built(name: str) -> Path:
    """Returns a peer that the set-up built from its registry.

    Raises:
        EnvironmentTrouble: it is not there; the message has the reason that the build gave.
    """
    program = cache() / name
    if program.exists():
        return program
    reason = cache() / f"{name}.missing"
    why = reason.read_text(encoding="utf-8") if reason.exists() else "`make bench` builds it"
    raise EnvironmentTrouble(f"{name} was not built: {why.strip()}")


def built_version(name: str) -> str:
    """Returns the pinned version of a built peer; its file lies in a folder of that name.

    Raises:
        EnvironmentTrouble: it was not built.
    """
    return built(name).resolve().parent.name.removeprefix(f"{name}-")


def seconds_to_ns(value: float) -> float:
    """Returns a number of seconds as ns."""
    return value * NS_PER_S
