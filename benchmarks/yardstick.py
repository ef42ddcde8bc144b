"""The C clients, as contenders: closed loop and open loop against an echo server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tools import compiled, read_json
from seatrial import proc
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

PAYLOAD_BYTES = 64
#: Beyond the time that a run takes.
GRACE = 30.0


def closed_loop(
    settings: Settings, server: Address, *, connections: int, depth: int, wait: str
) -> Figures:
    """Returns rate and service times of the C client of the closed loop."""
    words = [PAYLOAD_BYTES, settings.seconds, settings.warm_up, connections, depth, wait]
    return _run(settings, "echo_client", server, words)


def open_loop(
    settings: Settings,
    server: Address,
    *,
    rate_rps: float,
    wait: str,
    arrival: str = "poisson",
    seconds: float | None = None,
    connections: int = 16,
    seed: int = 1,
) -> Figures:
    """Returns lateness and response times of the C client of the open loop."""
    length = settings.seconds if seconds is None else seconds
    words = [PAYLOAD_BYTES, length, settings.warm_up, connections, rate_rps, arrival, wait, seed]
    figures = dict(_run(settings, "open_loop", server, words))
    figures["cpu_ratio"] = figures["cpu_ns"] / figures["elapsed_ns"]
    return figures


def _run(settings: Settings, name: str, server: Address, words: list[object]) -> Figures:
    program = compiled(name, settings.build)
    argv = [str(program), server.host, str(server.port), *map(str, words)]
    timeout = settings.seconds + settings.warm_up + settings.freeze_ns / NS_PER_S + GRACE
    done = proc.run(settings.for_client(argv), timeout_s=timeout)
    read = read_json(done.text, source=name)
    return {key: float(str(value)) for key, value in read.items()}
