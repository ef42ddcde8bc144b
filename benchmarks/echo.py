"""The load engine against a minimal C client, and its own limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.series import Row, Target, interleave, ratio_row
from benchmarks.servers import Server
from benchmarks.tools import compiled
from seatrial import proc
from seatrial.loadgen import LoadRequest, run_load
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 7
SECONDS = 1.0
PAYLOAD_BYTES = 64
QUANTILES = (0.5, 0.99, 0.999)


def _request(target: str, **changes: object) -> LoadRequest:
    values: dict[str, object] = {
        "targets": (target,),
        "protocol": "echo",
        "operation": "empty",
        "payload_bytes": PAYLOAD_BYTES,
        "demand": "none",
        "arrival": "closed",
        "rate_rps": None,
        "connections": 1,
        "threads": 1,
        "depth": 1,
        "warm_up_ns": 100_000_000,
        "measure_ns": int(SECONDS * NS_PER_S),
        "drain_ns": NS_PER_S,
        "request_timeout_ns": NS_PER_S,
        "records_max": 4_000_000,
        "seed": 1,
    }
    values.update(changes)
    return LoadRequest(**values)  # type: ignore[arg-type]  # one table of defaults for all


def closed_loop(build: Path) -> list[Row]:
    """One connection against the C client, requests a second."""
    client = compiled("echo_client", build)
    with Server("echo") as server:

        def ours() -> list[float]:
            result = run_load(_request(server.url))
            return [result.ok_count / (result.ended_at_ns - result.started_at_ns) * NS_PER_S]

        def theirs() -> list[float]:
            argv = [str(client), server.host, str(server.port), str(PAYLOAD_BYTES), str(SECONDS)]
            done = proc.run(argv, timeout_s=30)
            return [float(done.text.split()[2])]

        measured, baseline = interleave(ours, theirs, rounds=ROUNDS)
    name = "closed loop, 1 connection: requests/s, ours / C client"
    return [ratio_row(name, measured, baseline, target=Target(ratio=0.9, is_upper=False))]


def throughput() -> list[Row]:
    """64 connections, depth 1, one engine thread."""
    with Server("echo") as server:
        result = run_load(_request(server.url, connections=64))
    seconds = (result.measure_end_ns - result.measure_start_ns) / NS_PER_S
    count = result.service_histogram.count  # of the measure phase only, unlike the counters
    return [
        Row(
            name="closed loop, 64 connections, 1 thread: requests/s",
            value=f"{count / seconds:,.0f}",
        )
    ]


def send_lag() -> list[Row]:
    """How late Poisson arrivals are sent, at two rates."""
    rows = []
    with Server("echo") as server:
        for rate in (1_000.0, 10_000.0):
            result = run_load(
                _request(
                    server.url,
                    arrival="poisson",
                    rate_rps=rate,
                    connections=8,
                    depth=16,
                    measure_ns=5 * NS_PER_S,
                )
            )
            lags = [result.send_lag_histogram.quantile(q) / 1000 for q in QUANTILES]
            text = " / ".join(f"{lag:.1f}" for lag in lags)
            rows.append(Row(name=f"send lag at {rate:,.0f}/s: p50 / p99 / p99.9, us", value=text))
    return rows
