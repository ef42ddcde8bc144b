"""oha: HTTP with a rate for all workers and latency from the intended instant, as it sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.common import built, built_version, run_pinned, seconds_to_ns
from benchmarks.tools import read_json
from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.settings import Settings

QUANTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}


def paced(
    settings: Settings, url: str, *, connections: int, seconds: float, rate_rps: float
) -> Figures:
    """Returns rate and corrected quantiles of a load with a rate."""
    argv = [str(built("oha")), "--no-tui", "--output-format", "json", "-z", f"{seconds:g}s"]
    argv += ["-c", str(connections), "-q", f"{rate_rps:g}", "--latency-correction", url]
    return parse(run_pinned(settings, argv, seconds=seconds))


def parse(text: str) -> dict[str, float]:
    """Reads oha's JSON."""
    read = read_json(text, source="oha")
    try:
        summary, quantiles = read["summary"], read["latencyPercentiles"]
        if not isinstance(summary, dict) or not isinstance(quantiles, dict):
            raise EnvironmentTrouble("oha: summary and percentiles are no JSON objects")
        figures = {"rate_rps": float(summary["requestsPerSec"])}
        figures["response_max_ns"] = seconds_to_ns(float(summary["slowest"]))
        for word, key in QUANTILES.items():
            figures[f"response_{word}_ns"] = seconds_to_ns(float(quantiles[key]))
    except KeyError as error:
        raise EnvironmentTrouble(f"oha: no {error} in its JSON") from error
    return figures


def version() -> str:
    """Returns oha's pinned version."""
    return built_version("oha")
