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
from benchmarks.series import contest, one_line, rate_text
from benchmarks.servers import grpcio_server, guest_server
from seatrial.errors import SeatrialError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.series import Contest, Figures
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
    """Returns a row for each number of connections and peer, then one on grpcio's own server."""
    body = write_body(settings)
    found = []
    with guest_server(settings, "grpc") as server:
        quiet = Quiet(settings)
        quiet.add_helpers([server.pid])
        for connections, (mode, targets) in TARGETS.items():
            sides = contenders(settings, server, connections, body)
            done = contest(sides, rounds=settings.rounds, quiet=quiet)
            plural = "s" if connections > 1 else ""
            name = f"gRPC unary 64 B, {connections} connection{plural}, {mode}"
            found += [row(done, name, mode, peer, target) for peer, target in targets.items()]
    return found + on_slow_server(settings, body)


def on_slow_server(settings: Settings, body: Path) -> list[Row]:
    """Returns the same against grpcio's server, whose own processor is the limit."""
    name = f"gRPC unary 64 B, 16 connections, grpcio's server, {BLOCK}"
    try:
        with grpcio_server(settings) as server:
            quiet = Quiet(settings)
            quiet.add_helpers([server.pid])
            sides = contenders(settings, server, 16, body)
            kept = {side: sides[side] for side in (BLOCK, "grpcio")}
            done = contest(kept, rounds=settings.rounds, quiet=quiet)
    except SeatrialError as error:
        # The server is a peer, too: without it only this row is missing.
        return [Row(id="T7", name=name, theirs=one_line(f"none: {error}"), verdict="not measured")]
    return [row(done, name, BLOCK, "grpcio", Target(must=1.2))]


def row(done: Contest, name: str, ours: str, theirs: str, target: Target | None) -> Row:
    """Returns the ratio of two rates."""
    return done.ratio(
        Row(id="T7", name=name),
        "rate_rps",
        ours=ours,
        theirs=theirs,
        shown=rate_text,
        target=target,
    )


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
