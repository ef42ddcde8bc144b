"""wrk: closed loop over HTTP/1.1, one request at a time on each connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.common import duration_ns, found, run_pinned, whole_seconds
from seatrial import proc

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.settings import Settings


def measure(settings: Settings, url: str, *, connections: int, seconds: float) -> Figures:
    """Returns rate and quantiles of one run; wrk takes whole seconds."""
    length = whole_seconds(seconds)
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{length}s", "--latency", url]
    return parse(run_pinned(settings, argv, seconds=length))


def parse(text: str) -> dict[str, float]:
    """Reads the table that wrk prints with `--latency`."""
    figures = {"rate_rps": float(found(r"^Requests/sec:\s+([\d.]+)", text, tool="wrk"))}
    for word, share in (("p50", 50), ("p90", 90), ("p99", 99)):
        figures[f"response_{word}_ns"] = duration_ns(
            found(rf"^\s+{share}%\s+(\S+)", text, tool="wrk")
        )
    worst = found(r"^\s+Latency\s+\S+\s+\S+\s+(\S+)", text, tool="wrk")
    figures["response_max_ns"] = duration_ns(worst)
    return figures


def version() -> str:
    """Returns wrk's version; it prints it with its usage, as a failure."""
    return found(r"wrk (\S+)", proc.run(["wrk", "--version"], check=False).text, tool="wrk")
