"""The control channel with a hostile peer, on either side."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.errors import DriverError, ProtocolMismatch
from seatrial.guest.binary import guest_binary
from seatrial.guest.channel import GuestChannel
from seatrial.loadgen import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

#: Mutated inputs that the guest has to stand; a guest takes up to 40 of them, then a new one does.
INPUTS_COUNT = 2400
INPUTS_PER_GUEST = 40
#: A guest that takes longer to end is stuck.
PATIENCE_S = 60
SEED = 20_261_122

EXIT_CLOSED, EXIT_REFUSED = 0, 70
SERVE = ("serve", "--protocol", "rpc", "--listen", "tcp:127.0.0.1:0")


def frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame of version 2."""
    return struct.pack("<IBB", 2 + len(payload), 2, kind) + payload


STATS = {
    "protocol": "rpc",
    "connections": {"accepted": 1, "refused": 0, "closed": 1, "open": 0},
    "operations": {"empty": 1},
    "worker_requests": [1],
    "service_histogram": Histogram().to_bytes().hex(),
    "queue_histogram": Histogram().to_bytes().hex(),
    **dict.fromkeys(
        (
            "at_mono_ns",
            "requests",
            "replies",
            "bad_requests",
            "unknown_requests",
            "dropped_datagrams",
            "received_bytes",
            "sent_bytes",
        ),
        1,
    ),
}
VALID_OF_GUEST = (
    frame(1, struct.pack("<QQI", 1, 2, 3) + b"guest"),
    frame(2, bytes(8)),
    frame(2, bytes(8) + b'{"endpoints": ["tcp:0.0.0.0:1"]}'),
    frame(3, b"x"),
    frame(4, b'{"probe": "syscall"}'),
    frame(5, b'{"code": "busy", "message": "later"}'),
    frame(6, json.dumps(STATS).encode()),
    frame(6, json.dumps({**STATS, "worker_requests": [True, -1]}).encode()),
    frame(6, json.dumps({**STATS, "service_histogram": "00ff"}).encode()),
)
#: Only probes that do nothing outside of the guest, whatever becomes of their numbers.
VALID_OF_HOST = (
    frame(0x11, b"payload"),
    frame(0x11),
    frame(0x12, b'{"probe": "syscall", "iterations": 10, "batches": 2}'),
    frame(0x12, b'{"probe": "spin", "cpu_ns": 1000, "batches": 3}'),
    frame(0x12, b'{"probe": "unknown"}'),
    frame(0x13),
    frame(0x14),
)

CALLS: tuple[Callable[[GuestChannel], object], ...] = (
    lambda channel: channel.hello(),
    lambda channel: channel.ready(),
    lambda channel: channel.ping(b"x"),
    lambda channel: channel.run({"probe": "syscall"}),
    lambda channel: channel.stats(),
)


@st.composite
def hostile_streams(draw: st.DrawFn) -> bytes:
    """Frames of a guest, whole, damaged or made up, then perhaps any bytes."""
    made_up = st.builds(frame, st.integers(0, 255), st.binary(max_size=40))
    parts = draw(st.lists(st.one_of(st.sampled_from(VALID_OF_GUEST), made_up), max_size=5))
    data = bytearray(b"".join(parts) + draw(st.binary(max_size=20)))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=500, deadline=None)
@given(data=hostile_streams(), calls=st.lists(st.sampled_from(CALLS), min_size=1, max_size=4))
def test_whatever_a_guest_sends_calls_end_in_a_typed_way(
    data: bytes, calls: list[Callable[[GuestChannel], object]]
) -> None:
    """An answer, ``ProtocolMismatch`` or ``DriverError``; never anything else, never a hang."""
    host, guest = socket.socketpair()
    with guest, GuestChannel(host) as channel:
        guest.sendall(data)
        guest.shutdown(socket.SHUT_WR)
        for call in calls:
            with contextlib.suppress(ProtocolMismatch, DriverError):
                call(channel)
        with contextlib.suppress(DriverError):
            channel.stop()


def mutated(draw: random.Random) -> bytes:
    """One input: a valid frame with a few things wrong with it, or with nothing."""
    data = bytearray(draw.choice(VALID_OF_HOST))
    for _ in range(draw.choice((0, 0, 1, 1, 2, 4))):
        position = draw.randrange(len(data) + 1)
        match draw.randrange(6):
            case 0 if position < len(data):
                data[position] = draw.randrange(256)
            case 1:
                data[position:position] = draw.randbytes(draw.randrange(1, 5))
            case 2:
                del data[position : position + draw.randrange(1, 5)]
            case 3:
                data += data[position:]
            case 4:  # the length tells the truth about a payload that is damaged
                payload = data[6:] + draw.randbytes(draw.randrange(8))
                data = bytearray(frame(draw.choice((0x11, 0x12, 0x12)), bytes(payload)))
            case _:  # nesting, and texts of every kind
                text = json.dumps({"probe": draw.choice(("syscall", "[" * 99, "\0", "é"))})
                data = bytearray(frame(0x12, text.encode() * draw.randrange(1, 3)))
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


@pytest.mark.timeout(300)
def test_whatever_a_host_sends_the_guest_ends_in_a_typed_way() -> None:
    """More than two thousand mutated inputs: exit 0 (closed) or 70 (refused), never a signal."""
    draw = random.Random(SEED)
    sent_count = 0
    codes: dict[int, int] = {}
    while sent_count < INPUTS_COUNT:
        inputs = [mutated(draw) for _ in range(INPUTS_PER_GUEST)]
        role = draw.choice((("idle",), SERVE))
        taken_count, code = feed(inputs, *role)
        sent_count += taken_count
        codes[code] = codes.get(code, 0) + 1
        assert code in {EXIT_CLOSED, EXIT_REFUSED}, f"exit {code} after {inputs[:taken_count]}"
    assert set(codes) == {EXIT_CLOSED, EXIT_REFUSED}


def feed(inputs: list[bytes], *role: str) -> tuple[int, int]:
    """Gives a new guest the inputs until it hangs up; how many it took, and its exit code."""
    host, inside = socket.socketpair()
    taken_count = 0
    with host:
        with inside:
            argv = [guest_binary(), "--channel-fd", "0", *role]
            guest = subprocess.Popen(argv, stdin=inside, stderr=subprocess.DEVNULL)
        host.settimeout(PATIENCE_S)
        # A guest that is gone resets the channel, sooner or later.
        with contextlib.suppress(ConnectionError):
            for data in inputs:
                host.sendall(data)
                taken_count += 1
            host.shutdown(socket.SHUT_WR)
            while host.recv(1 << 16):
                pass
    return taken_count, guest.wait(timeout=PATIENCE_S)
