"""Our side of every comparison: the load engine as a user runs it, in a process of its own."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from benchmarks.tools import ROOT, read_json
from seatrial import proc
from seatrial.errors import EnvironmentTrouble
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.settings import Settings

PAYLOAD_BYTES = 64
GRACE = 30.0


def load(settings: Settings, target: str, **changes: object) -> Figures:
    """Returns rate, times and CPU of one load; `changes` are fields of `LoadRequest`.

    The defaults ask for a closed loop over one connection, 64 bytes, on the client's processor.

    Raises:
        EnvironmentTrouble: the engine refused, or a request got no correct reply: no server here
            is meant to fail, so such a run would compare nothing.
    """
    values = request(settings, target, **changes)
    length_ns = sum(int(str(values[key])) for key in ("measure_ns", "warm_up_ns", "drain_ns"))
    done = proc.run(
        settings.for_client(command()),
        input=json.dumps(values).encode(),
        timeout_s=length_ns / NS_PER_S + GRACE,
        cwd=ROOT,
        check=False,
    )
    if done.exit_code != 0:
        raise EnvironmentTrouble(f"the engine refused: {last_line(done.stderr_tail)}")
    read = read_json(done.text, source="the engine")
    figures = {key: float(str(value)) for key, value in read.items()}
    if figures["failed_count"]:
        message = f"{figures['failed_count']:.0f} of {figures['intended_count']:.0f} requests"
        raise EnvironmentTrouble(f"{message} got no correct reply")
    return figures


def command() -> list[str]:
    """Returns how the child is started."""
    return [sys.executable, "-m", "benchmarks.engine_child"]


def request(settings: Settings, target: str, **changes: object) -> dict[str, object]:
    """Returns the fields of the request, as JSON can carry them."""
    values: dict[str, object] = {
        "targets": [target],
        "protocol": "echo",
        "payload_bytes": PAYLOAD_BYTES,
        "warm_up_ns": settings.warm_up_ns,
        "measure_ns": settings.measure_ns,
        "drain_ns": NS_PER_S,
        "request_timeout_ns": NS_PER_S,
        "records_max": 100_000,
        "requests_max": 200_000_000,
        "seed": 1,
        "wait": "block",
    }
    values.update(changes)
    return values


def last_line(text: str) -> str:
    """Returns the last words of a program: in a traceback, the error itself."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
