"""grpcio: the official Python client, in an interpreter that finds it beside our own packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.common import built, built_version, run_pinned
from benchmarks.tools import read_json

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

CHILD = Path(__file__).parent / "grpcio_child.py"


def measure(
    settings: Settings,
    server: Address,
    *,
    method: str,
    calls: int,
    payload_bytes: int,
    seconds: float,
) -> Figures:
    """Returns rate and quantiles with so many calls in flight on one channel."""
    folder = built("grpcio")
    argv = ["env", f"PYTHONPATH={folder}", sys.executable, str(CHILD)]
    argv += [f"{server.host}:{server.port}", method, str(payload_bytes)]
    argv += [f"{seconds:g}", f"{settings.warm_up:g}", str(calls)]
    text = run_pinned(settings, argv, seconds=seconds + settings.warm_up)
    return {key: float(str(value)) for key, value in read_json(text, source="grpcio").items()}


def version() -> str:
    """Returns grpcio's locked version."""
    return built_version("grpcio")
