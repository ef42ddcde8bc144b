"""A guest that serves, and its wire formats by hand, so that tests do not trust the engine's."""

from __future__ import annotations

import socket
import struct
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.guest.binary import guest_binary
from seatrial.guest.channel import GuestChannel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.guest.stats import ServerStats

#: Longer than anything takes on a busy machine; only a failure waits for it.
PATIENCE_S: Final = 60
EMPTY, CHECKSUM, SPIN, SLEEP, SPIN_WALL, TOUCH = range(6)
OK, BAD_REQUEST, CHECKSUM_MISMATCH, TOO_LARGE = range(4)
_REQUEST: Final = struct.Struct("<IBBHQQII")
_REPLY: Final = struct.Struct("<IBBHQQQQQ")
_VERSION: Final = 2
_WORD: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One rpc reply."""

    status: int
    request_id: int
    value: int
    service_ns: int
    queue_ns: int
    seed: int
    payload: bytes


class Served:
    """A running server."""

    def __init__(self, channel: GuestChannel, endpoints: tuple[str, ...], pid: int) -> None:
        """Keep what it said."""
        self.channel = channel
        self.endpoints = endpoints
        self.pid = pid

    def connect(self, index: int = 0) -> socket.socket:
        """A client of one of the endpoints, which does not wait for ever."""
        kind, _, rest = self.endpoints[index].partition(":")
        if kind == "unix":
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(PATIENCE_S)
            client.connect(rest)
            return client
        host, _, port = rest.rpartition(":")
        if kind == "udp":
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.settimeout(PATIENCE_S)
            client.connect((host, int(port)))
            return client
        client = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def stats(self) -> ServerStats:
        """What it has counted."""
        return self.channel.stats()

    def settled(self) -> ServerStats:
        """What it has counted once it has seen the end of all connections."""
        stats = self.stats()
        while stats.open_connections:
            stats = self.stats()
        return stats


@contextmanager
def guest(*role: str) -> Iterator[tuple[GuestChannel, int]]:
    """A guest in a role; it has to end well when it is told to stop."""
    host, inside = socket.socketpair()
    with inside:
        process = subprocess.Popen([str(guest_binary()), "--channel-fd", "0", *role], stdin=inside)
    try:
        with GuestChannel(host) as channel:
            yield channel, process.pid
            channel.stop()
        assert process.wait(timeout=PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(*options: str) -> Iterator[Served]:
    """A guest in the role `serve`."""
    with guest("serve", *options) as (channel, pid):
        channel.hello()
        yield Served(channel, channel.ready().endpoints, pid)


def request(
    operation: int,
    *,
    request_id: int = 1,
    argument: int = 0,
    reply_bytes: int = 0,
    payload: bytes = b"",
) -> bytes:
    """A whole rpc request."""
    length = _REQUEST.size - 4 + len(payload)
    head = (length, _VERSION, operation, 0, request_id, argument, reply_bytes, 0)
    return _REQUEST.pack(*head) + payload


def checked(*, request_id: int, reply_bytes: int, payload: bytes = b"") -> bytes:
    """A checksum request with the right sum."""
    return request(
        CHECKSUM,
        request_id=request_id,
        argument=xxh64(payload, 0),
        reply_bytes=reply_bytes,
        payload=payload,
    )


def receive(client: socket.socket) -> Reply:
    """The next rpc reply of a stream."""
    head = exactly(client, _REPLY.size)
    (length,) = struct.unpack_from("<I", head)
    return parse(head + exactly(client, length + 4 - _REPLY.size))


def parse(data: bytes) -> Reply:
    """A whole rpc reply."""
    length, version, status, flags, *words = _REPLY.unpack_from(data)
    assert (length + 4, version, flags) == (len(data), _VERSION, 0)
    request_id, value, service_ns, queue_ns, seed = words
    return Reply(
        status=status,
        request_id=request_id,
        value=value,
        service_ns=service_ns,
        queue_ns=queue_ns,
        seed=seed,
        payload=data[_REPLY.size :],
    )


def exactly(client: socket.socket, count: int) -> bytes:
    """So many bytes."""
    data = bytearray()
    while len(data) < count:
        chunk = client.recv(count - len(data))
        assert chunk, f"the server hung up after {len(data)} of {count} bytes"
        data += chunk
    return bytes(data)


def until_closed(client: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    data = bytearray()
    while chunk := client.recv(65536):
        data += chunk
    return bytes(data)


def payload_of(seed: int, count: int) -> bytes:
    """The payload that belongs to a seed: SplitMix64, after its publication."""
    words = bytearray()
    state = seed
    while len(words) < count:
        state = (state + 0x9E3779B97F4A7C15) & _WORD
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
        words += (word ^ (word >> 31)).to_bytes(8, "little")
    return bytes(words[:count])


_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def _rotated(word: int, count: int) -> int:
    return ((word << count) | (word >> (64 - count))) & _WORD


def _round(lane: int, word: int) -> int:
    return _rotated((lane + word * _P2) & _WORD, 31) * _P1 & _WORD


def xxh64(data: bytes, seed: int) -> int:
    """XXH64, after its specification."""
    length, place = len(data), 0
    if length >= 32:
        lanes = [(seed + _P1 + _P2) & _WORD, (seed + _P2) & _WORD, seed, (seed - _P1) & _WORD]
        while place + 32 <= length:
            words = struct.unpack_from("<4Q", data, place)
            lanes = [_round(lane, word) for lane, word in zip(lanes, words, strict=True)]
            place += 32
        turns = zip(lanes, (1, 7, 12, 18), strict=True)
        total = sum(_rotated(lane, count) for lane, count in turns) & _WORD
        for lane in lanes:
            total = ((total ^ _round(0, lane)) * _P1 + _P4) & _WORD
    else:
        total = (seed + _P5) & _WORD
    total = (total + length) & _WORD
    while place + 8 <= length:
        (word,) = struct.unpack_from("<Q", data, place)
        total = (_rotated(total ^ _round(0, word), 27) * _P1 + _P4) & _WORD
        place += 8
    if place + 4 <= length:
        (half,) = struct.unpack_from("<I", data, place)
        total = (_rotated(total ^ (half * _P1 & _WORD), 23) * _P2 + _P3) & _WORD
        place += 4
    for byte in data[place:]:
        total = _rotated(total ^ (byte * _P5 & _WORD), 11) * _P1 & _WORD
    total = (total ^ (total >> 33)) * _P2 & _WORD
    total = (total ^ (total >> 29)) * _P3 & _WORD
    return total ^ (total >> 32)
