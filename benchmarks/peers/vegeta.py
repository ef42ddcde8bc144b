"""vegeta: HTTP with a constant rate; its latency counts from the actual send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.common import built, built_version, run_pinned
from benchmarks.tools import read_json
from seatrial import proc
from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.settings import Settings

#: The report on the log of single requests is not part of the measurement.
REPORT_TIMEOUT = 60.0
QUANTILES = {"p50": "50th", "p90": "90th", "p99": "99th", "max": "max"}


def paced(
    settings: Settings, url: str, *, connections: int, seconds: float, rate_rps: float
) -> Figures:
    """Returns rate and quantiles of an attack with as many workers as connections."""
    program, log = str(built("vegeta")), settings.build / "vegeta.bin"
    argv = [program, "attack", f"-rate={rate_rps:g}/1s", f"-duration={seconds:g}s"]
    argv += [f"-workers={connections}", f"-max-workers={connections}"]
    argv += [f"-connections={connections}", f"-output={log}"]
    run_pinned(settings, argv, seconds=seconds, input_bytes=f"GET {url}\n".encode())
    done = proc.run([program, "report", "-type=json", str(log)], timeout_s=REPORT_TIMEOUT)
    return parse(done.text)


def parse(text: str) -> dict[str, float]:
    """Reads the JSON of `vegeta report`, whose lengths are whole ns."""
    read = read_json(text, source="vegeta")
    latencies = read.get("latencies")
    if not isinstance(latencies, dict):
        raise EnvironmentTrouble(f"vegeta: no latencies in {text[:200]!r}")
    if read.get("success") != 1:
        raise EnvironmentTrouble(f"vegeta: success {read.get('success')}, errors {read['errors']}")
    figures = {"rate_rps": float(str(read["rate"]))}
    for word, key in QUANTILES.items():
        figures[f"response_{word}_ns"] = float(latencies[key])
    return figures


def version() -> str:
    """Returns vegeta's pinned version."""
    return built_version("vegeta")
