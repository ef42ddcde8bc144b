"""hey: HTTP/1.1, closed loop or with a rate for each worker; it prints steps of 0.1 ms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.common import found, run_pinned, seconds_to_ns, whole_seconds
from seatrial import proc

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.settings import Settings


def measure(
    settings: Settings,
    url: str,
    *,
    connections: int,
    seconds: float,
    rate_rps: float | None = None,
) -> Figures:
    """Returns rate and quantiles; `rate_rps` is divided among the workers, as hey wants it."""
    length = whole_seconds(seconds)
    argv = ["hey", "-cpus", "1", "-z", f"{length}s", "-c", str(connections)]
    argv += [] if rate_rps is None else ["-q", str(max(1, round(rate_rps / connections)))]
    return parse(run_pinned(settings, [*argv, url], seconds=length))


def parse(text: str) -> dict[str, float]:
    """Reads the summary."""
    figures = {"rate_rps": float(found(r"^\s+Requests/sec:\s+([\d.]+)", text, tool="hey"))}
    for word, share in (("p50", 50), ("p90", 90), ("p99", 99)):
        value = found(rf"^\s+{share}% in ([\d.]+) secs", text, tool="hey")
        figures[f"response_{word}_ns"] = seconds_to_ns(float(value))
    slowest = found(r"^\s+Slowest:\s+([\d.]+) secs", text, tool="hey")
    figures["response_max_ns"] = seconds_to_ns(float(slowest))
    return figures


def version() -> str:
    """Returns the version of Debian's package, since hey does not know its own."""
    done = proc.run(["dpkg-query", "-W", "-f", "${Version}", "hey"], check=False)
    return done.text.strip() or "of unknown version"
