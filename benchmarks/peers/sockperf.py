"""sockperf: ping-pong over TCP with its own server, blocking on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.common import found, run_pinned, whole_seconds
from seatrial import proc
from seatrial.units import NS_PER_US

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

PAYLOAD_BYTES = 64
#: Two clients of sockperf at once confuse its server; this one is alone.
QUANTILES = {"p50": "50.000", "p90": "90.000", "p99": "99.000", "p999": "99.900"}


def ping_pong(settings: Settings, server: Address, *, seconds: float) -> Figures:
    """Returns rate and round-trip times of one connection with one message in flight."""
    length = whole_seconds(seconds)
    argv = ["sockperf", "ping-pong", "-i", server.host, "-p", str(server.port), "--tcp"]
    argv += ["-m", str(PAYLOAD_BYTES), "-t", str(length), "--full-rtt"]
    return parse(run_pinned(settings, argv, seconds=length))


def parse(text: str) -> dict[str, float]:
    """Reads the report; the rate is of the part without warm-up."""
    valid = r"\[Valid Duration\] RunTime=%s"
    length = float(found(valid % r"([\d.]+) sec", text, tool="sockperf"))
    count = float(found(valid % r".*?ReceivedMessages=(\d+)", text, tool="sockperf"))
    figures = {"rate_rps": count / length}
    for word, share in QUANTILES.items():
        value = found(rf"percentile {share} =\s+([\d.]+)", text, tool="sockperf")
        figures[f"service_{word}_ns"] = float(value) * NS_PER_US
    worst = found(r"<MAX> observation =\s+([\d.]+)", text, tool="sockperf")
    figures["service_max_ns"] = float(worst) * NS_PER_US
    return figures


def version() -> str:
    """Returns sockperf's version."""
    done = proc.run(["sockperf", "--version"], check=False)
    return found(r"version (\S+?)-", done.text + done.stderr_tail, tool="sockperf")
