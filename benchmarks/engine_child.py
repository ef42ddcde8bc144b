"""One load of the real engine in a process of its own: a request as JSON in, figures out.

Started by `benchmarks.engine`, which pins the process; the same call that every bench of Seatrial
makes, `seatrial.loadgen.run_load`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from seatrial.loadgen import LoadRequest, run_load
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from seatrial.loadgen import Histogram, LoadResult

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def figures(result: LoadResult) -> dict[str, float]:
    """Returns what a benchmark compares: rate, times and CPU of the measure phase."""
    elapsed_ns = result.measure_end_ns - result.measure_start_ns
    count = result.service_histogram.count  # of the measure phase only, unlike the counters
    cpu_ns = result.generator_user_ns + result.generator_system_ns
    found: dict[str, float] = {
        "rate_rps": count / elapsed_ns * NS_PER_S,
        "sent_count": result.sent_count,
        "ok_count": result.ok_count,
        "intended_count": result.intended_count,
        "failed_count": result.intended_count - result.ok_count,
        "user_ns": result.generator_user_ns,
        "cpu_ns": cpu_ns,
        "cpu_ratio": cpu_ns / (result.ended_at_ns - result.started_at_ns),
    }
    found |= quantiles("service", result.service_histogram)
    found |= quantiles("response", result.response_histogram)
    found |= quantiles("late", result.send_lag_histogram)  # a wait for a free place included
    return found


def quantiles(name: str, histogram: Histogram) -> dict[str, float]:
    """Returns the quantiles of one histogram (ns); none when it is empty."""
    if histogram.max_ns is None:
        return {}
    found = {
        f"{name}_{word}_ns": float(value)
        for word, q in QUANTILES.items()
        if (value := histogram.quantile(q)) is not None
    }
    return found | {f"{name}_max_ns": float(histogram.max_ns)}


def main() -> int:
    """Reads the request, offers the load, prints the figures."""
    settings = json.load(sys.stdin)
    settings["targets"] = tuple(settings["targets"])
    if "cpus" in settings:
        settings["cpus"] = tuple(settings["cpus"])
    result = run_load(LoadRequest(**settings))
    json.dump(figures(result), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
