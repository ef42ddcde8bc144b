"""fortio: HTTP with a rate divided among its threads; its latency counts from the actual send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.common import built, built_version, run_pinned, seconds_to_ns
from benchmarks.tools import read_json
from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.settings import Settings

#: Width of its buckets in seconds; its own default, 1 ms, could not tell anything here.
RESOLUTION = "0.000001"
QUANTILES = {50: "p50", 90: "p90", 99: "p99", 99.9: "p999"}


def paced(
    settings: Settings, url: str, *, connections: int, seconds: float, rate_rps: float
) -> Figures:
    """Returns rate and quantiles of a load with a rate."""
    argv = [str(built("fortio")), "load", "-quiet", "-qps", f"{rate_rps:g}"]
    argv += ["-c", str(connections), "-t", f"{seconds:g}s", "-r", RESOLUTION]
    argv += ["-p", ",".join(f"{share:g}" for share in QUANTILES), "-json", "-", url]
    return parse(run_pinned(settings, argv, seconds=seconds))


def parse(text: str) -> dict[str, float]:
    """Reads fortio's JSON, whose lengths are seconds."""
    read = read_json(text, source="fortio")
    histogram = read.get("DurationHistogram")
    if not isinstance(histogram, dict) or not histogram.get("Percentiles"):
        raise EnvironmentTrouble(f"fortio: no percentiles in {text[:200]!r}")
    figures = {"rate_rps": float(str(read["ActualQPS"]))}
    figures["response_max_ns"] = seconds_to_ns(float(histogram["Max"]))
    for entry in histogram["Percentiles"]:
        word = QUANTILES[entry["Percentile"]]
        figures[f"response_{word}_ns"] = seconds_to_ns(float(entry["Value"]))
    return figures


def version() -> str:
    """Returns fortio's pinned version."""
    return built_version("fortio")
