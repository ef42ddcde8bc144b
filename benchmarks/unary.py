"""T7: unary gRPC calls of 64 bytes against our guest's server, beside h2load, ghz and grpcio.

All call the same method, which gives the message back as it came. h2load sends the same frames
but understands no gRPC; it is the fastest client of HTTP/2 that Debian has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import engine
from benchmarks.peers import ghz, grpcio, h2load
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest, rate_text
from benchmarks.servers import guest_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.series import Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

METHOD = "/seatrial.bench.Echo/Call"
MESSAGE_BYTES = 64
HEADERS = ("content-type: application/grpc", "te: trailers")
SPIN, BLOCK = "ours, spinning", "ours, blocking"
#: Connections: how ours waits, then the targets against each peer.
TARGETS = {
    1: (
        SPIN,
        {
            "h2load": Target(must=1, stretch=1.3),
            "grpcio": Target(must=6, stretch=10),
            "ghz": None,
        },
    ),
    16: (
        BLOCK,
        {
            "h2load": Target(must=1, stretch=1.3),
            "grpcio": Target(must=12, stretch=18),
            "ghz": None,
        },
    ),
}


def rows(settings: Settings) -> list[Row]:
    """Returns a row for each number of connections and peer."""
    quiet = Quiet(settings)
    body = write_body(settings)
    found = []
    with guest_server(settings, "grpc") as server:
        quiet.add_helpers([server.pid])
        for connections, (mode, targets) in TARGETS.items():
            done = contest(
                contenders(settings, server, connections, body),
                rounds=settings.rounds,
                quiet=quiet,
            )
            plural = "s" if connections > 1 else ""
            found += [
                done.ratio(
                    Row(id="T7", name=f"gRPC unary 64 B, {connections} connection{plural}, {mode}"),
                    "rate_rps",
                    ours=mode,
                    theirs=peer,
                    shown=rate_text,
                    target=target,
                )
                for peer, target in targets.items()
            ]
    return found


def contenders(
    settings: Settings, server: Address, connections: int, body: Path
) -> dict[str, Callable[[], Figures]]:
    """Returns who runs, one call at a time on each connection; grpcio shares one connection."""
    mode, count, seconds = TARGETS[connections][0], connections, settings.seconds
    return {
        mode: lambda: engine.load(
            settings,
            server.tcp,
            protocol="grpc",
            options={"method": METHOD, "message_hex": ghz.message(MESSAGE_BYTES).hex()},
            payload_bytes=0,
            connections=count,
            wait="spin" if mode == SPIN else "block",
        ),
        "h2load": lambda: h2load.measure(
            settings,
            server.http.rstrip("/") + METHOD,
            connections=count,
            seconds=seconds,
            body=body,
            headers=HEADERS,
        ),
        "ghz": lambda: ghz.measure(
            settings, server, connections=count, message_bytes=MESSAGE_BYTES, seconds=seconds
        ),
        "grpcio": lambda: grpcio.measure(
            settings,
            server,
            method=METHOD,
            calls=count,
            payload_bytes=MESSAGE_BYTES,
            seconds=seconds,
        ),
    }


def write_body(settings: Settings) -> Path:
    """Returns a file with one framed message: a byte 0, its length, its bytes."""
    path = settings.build / "message"
    path.write_bytes(b"\0" + MESSAGE_BYTES.to_bytes(4, "big") + ghz.message(MESSAGE_BYTES))
    return path
