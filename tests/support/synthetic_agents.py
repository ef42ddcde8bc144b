"""Tables of the benches with agents, with known numbers in them; see `tests.support.synthetic`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seatrial.model.experiment import FleetSettings, Layout, Operation, RpcMode, RpcSettings

if TYPE_CHECKING:
    import random

    from seatrial.model.plan import TrialSpec

MS = 1_000_000
S = 1_000_000_000
LATENCY_REQUESTS = 500
INTERVALS = 4
#: Correct replies of one client in one interval.
CLIENT_REPLIES = 2_500
Row = Mapping[str, object]

FLEET = FleetSettings(
    layouts=(Layout.SANDBOXES, Layout.SERVERS),
    counts=(1, 2),
    operation=Operation.SPIN,
    demands=("constant:100us",),
    rates_rps=(500.0, 2000.0),
    payload_bytes=0,
    connections=4,
    threads=1,
    load_agents=1,
    latency_agents=1,
    latency_rate_rps=500.0,
    duration_ns=S,
    warm_up_ns=0,
    drain_ns=S,
    request_timeout_ns=S,
)
RPC = RpcSettings(
    modes=(RpcMode.EMPTY, RpcMode.CHECKSUM),
    payload_bytes=2048,
    threads=(1,),
    clients=(1, 2),
    workers=1,
    warm_up_ns=0,
    client_duration_ns=S,
    server_duration_ns=10 * S,
    interval_ns=S // INTERVALS,
    request_timeout_ns=S,
)


def fleet_tables(spec: TrialSpec, rng: random.Random, service_ns: float) -> dict[str, list[Row]]:
    """One trial: latencies around the service time, everything answered, the last server slower."""
    values = spec.point.values
    count, rate = int(values["count"]), float(values["rate_rps"])
    is_spread = values["layout"] == Layout.SANDBOXES
    rates = {"load-0": rate, "latency-0": FLEET.latency_rate_rps}
    return {
        "requests": _requests(rng, service_ns),
        "loads": [_load(agent, own) for agent, own in rates.items()],
        "intervals": [row for agent, own in rates.items() for row in _intervals(agent, own)],
        "targets": [
            {
                "position": position,
                "target": f"tcp://10.0.0.{position}:7000",
                "sandbox": f"s{position if is_spread else 0}",
                "intended_count": 100,
                "sent_count": 100,
                "ok_count": 100,
                "timeout_count": 0,
                "failed_count": 0,
                "response_ns_p50": service_ns * (1 + 0.1 * position),
                "response_ns_p95": service_ns * 2,
                "response_ns_p99": service_ns * 3,
            }
            for position in range(count)
        ],
        "servers": _servers(count if is_spread else 1, int(sum(rates.values())), service_ns),
    }


def rpc_tables(spec: TrialSpec, rng: random.Random, service_ns: float) -> dict[str, list[Row]]:
    """One trial: every client gets as many replies as the others."""
    clients = [f"client-{number}" for number in range(int(spec.point.values["clients"]))]
    rate = CLIENT_REPLIES * INTERVALS * rng.uniform(0.99, 1.01)
    return {
        "requests": _requests(rng, service_ns),
        "loads": [_load(client, rate) for client in clients],
        "intervals": [row for client in clients for row in _intervals(client, rate)],
        "servers": _servers(1, round(rate) * len(clients), service_ns),
    }


def _requests(rng: random.Random, service_ns: float) -> list[Row]:
    rows: list[Row] = []
    for number in range(LATENCY_REQUESTS):
        due = number * S // LATENCY_REQUESTS
        rows.append(
            {
                "intended_at_ns": due,
                "sent_at_ns": due + 1_000,
                "done_at_ns": due + round(service_ns * rng.lognormvariate(0, 0.2)),
                "outcome": 0,
                "connection": 0,
                "request_id": number,
                "demand_ns": 100_000,
                "phase": 1,
            }
        )  # fmt: skip - one row
    return rows


def _load(agent: str, rate: float) -> Row:
    count = round(rate)
    return {
        "agent": agent,
        "started_at_ns": 0,
        "ended_at_ns": S,
        "threads_count": 1,
        "measure_start_ns": 0,
        "measure_end_ns": S,
        "intended_count": count,
        "sent_count": count,
        "ok_count": count,
        "measured_intended_count": count,
        "measured_ok_count": count,
        "timeout_count": 0,
        "error_count": 0,
        "application_error_count": 0,
        "records_dropped_count": 0,
        "generator_user_ns": 1,
        "generator_system_ns": 1,
        "pacing_lag_ns_p50": 1_000.0,
        "pacing_lag_ns_p99": 2_000.0,
    }


def _intervals(agent: str, rate: float) -> list[Row]:
    count = round(rate / INTERVALS)
    return [
        {
            "agent": agent,
            "position": position,
            "started_at_ns": position * S // INTERVALS,
            "ended_at_ns": (position + 1) * S // INTERVALS,
            "intended_count": count,
            "sent_count": count,
            "ok_count": count,
            "failed_count": 0,
            "sent_bytes": 32 * count,
            "received_bytes": 48 * count,
        }
        for position in range(INTERVALS)
    ]


def _servers(sandboxes: int, requests: int, service_ns: float) -> list[Row]:
    return [
        {
            "sandbox": f"s{number}",
            "servers_count": 1,
            "requests_count": requests if number == 0 else 0,
            "replies_count": requests if number == 0 else 0,
            "bad_requests_count": 0,
            "unknown_requests_count": 0,
            "cpu_ns": round(requests * service_ns) if number == 0 else 0,
        }
        for number in range(sandboxes)
    ]
