"""The host's end of the control channel, against a scripted guest."""

from __future__ import annotations

import json
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from seatrial.errors import DriverError, ProtocolMismatch
from seatrial.guest.channel import FRAME_BYTES_MAX, PING_BYTES_MAX, GuestChannel
from seatrial.loadgen import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ends = tuple[GuestChannel, socket.socket]

HELLO, READY, PONG, RESULT, ERROR, STATS = 1, 2, 3, 4, 5, 6
SOON_NS = 50_000_000


def frame(kind: int, payload: bytes = b"", *, version: int = 2) -> bytes:
    """One frame as a guest writes it."""
    return struct.pack("<IBB", 2 + len(payload), version, kind) + payload


def hello_payload(build: bytes = b"guest 1") -> bytes:
    """A HELLO with the instants 5 and 6 and the pid 7."""
    return struct.pack("<QQI", 5, 6, 7) + build


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A channel and the guest's end of it."""
    host, guest = socket.socketpair()
    with guest, GuestChannel(host, name="s1") as channel:
        yield channel, guest


def test_hello_and_ready_are_read(ends: Ends) -> None:
    """Instants, pid, build text and endpoints come out as they went in."""
    channel, guest = ends
    endpoints = json.dumps({"endpoints": ["tcp:127.0.0.1:7000"]}).encode()
    guest.sendall(frame(HELLO, hello_payload()) + frame(READY, struct.pack("<Q", 8) + endpoints))
    hello = channel.hello()
    assert (hello.first_instruction_mono_ns, hello.hello_mono_ns) == (5, 6)
    assert (hello.pid, hello.build) == (7, "guest 1")
    ready = channel.ready()
    assert (ready.ready_mono_ns, ready.endpoints) == (8, ("tcp:127.0.0.1:7000",))


def test_a_role_without_endpoints_is_ready_too(ends: Ends) -> None:
    """Nothing behind the instant means that it does not listen."""
    channel, guest = ends
    guest.sendall(frame(READY, struct.pack("<Q", 8)))
    assert channel.ready().endpoints == ()


def test_ping_compares_what_comes_back(ends: Ends) -> None:
    """HELLO and READY that nobody took may come before the answer."""
    channel, guest = ends
    guest.sendall(frame(HELLO, hello_payload()) + frame(READY, bytes(8)) + frame(PONG, b"abc"))
    channel.ping(b"abc")
    assert guest.recv(100) == struct.pack("<IBB", 5, 2, 0x11) + b"abc"
    with pytest.raises(ValueError, match="at most 65536"):
        channel.ping(bytes(PING_BYTES_MAX + 1))
    guest.sendall(frame(PONG, b"abd"))
    with pytest.raises(ProtocolMismatch, match="PONG with other bytes"):
        channel.ping(b"abc")


def test_run_gives_the_result(ends: Ends) -> None:
    """The request goes out as JSON, the result comes back as a mapping."""
    channel, guest = ends
    guest.sendall(frame(RESULT, b'{"probe": "syscall", "batch_ns": [1]}'))
    assert channel.run({"probe": "syscall"}) == {"probe": "syscall", "batch_ns": [1]}
    assert guest.recv(100)[6:] == b'{"probe": "syscall"}'
    with pytest.raises(ValueError, match="request of"):
        channel.run({"probe": "x" * FRAME_BYTES_MAX})
    with pytest.raises(ValueError, match="Out of range float"):
        channel.run({"probe": float("nan")})


def stats_record(**changes: object) -> dict[str, object]:
    """What a server of one worker sends that has answered one request."""
    times = Histogram().to_bytes().hex()
    names = ("requests", "replies", "bad_requests", "dropped_datagrams", "sent_bytes")
    return {
        "protocol": "rpc",
        "at_mono_ns": 5,
        "connections": {"accepted": 4, "refused": 3, "closed": 2, "open": 1},
        **{name: index for index, name in enumerate(names)},
        "received_bytes": 9,
        "unknown_requests": 8,
        "operations": {"empty": 1},
        "worker_requests": [1],
        "service_histogram": times,
        "queue_histogram": times,
        **changes,
    }


def test_counts_of_a_server_are_read(ends: Ends) -> None:
    """Each number ends up under its own name."""
    channel, guest = ends
    guest.sendall(frame(STATS, json.dumps(stats_record()).encode()))
    stats = channel.stats()
    assert guest.recv(100) == struct.pack("<IBB", 2, 2, 0x14)
    assert (stats.protocol, stats.at_mono_ns, stats.operations) == ("rpc", 5, {"empty": 1})
    assert (stats.accepted_connections, stats.refused_connections) == (4, 3)
    assert (stats.closed_connections, stats.open_connections) == (2, 1)
    assert (stats.requests, stats.replies, stats.bad_requests) == (0, 1, 2)
    assert stats.unknown_requests == 8
    assert (stats.dropped_datagrams, stats.sent_bytes, stats.received_bytes) == (3, 4, 9)
    assert stats.worker_requests == (1,)
    assert stats.service_histogram.count == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"requests": -1}, "requests is -1, expected a count"),
        ({"requests": True}, "requests is True, expected a count"),
        ({"protocol": None}, "protocol is no text"),
        ({"operations": []}, "operations is no table"),
        ({"operations": {"empty": "1"}}, "empty is '1', expected a count"),
        ({"connections": {}}, "accepted is None, expected a count"),
        ({"worker_requests": 1}, "worker_requests is no list"),
        ({"worker_requests": [None]}, "worker is None, expected a count"),
        ({"queue_histogram": "0g"}, "queue_histogram is no histogram"),
        ({"queue_histogram": "00"}, "queue_histogram is no histogram"),
    ],
)
def test_counts_that_are_none_are_refused(
    ends: Ends, changes: dict[str, object], expected: str
) -> None:
    """A mismatch that names the field."""
    channel, guest = ends
    guest.sendall(frame(STATS, json.dumps(stats_record(**changes)).encode()))
    with pytest.raises(ProtocolMismatch, match=expected):
        channel.stats()


def test_a_refusal_leaves_the_channel_usable(ends: Ends) -> None:
    """The guest's own code and message are in the error."""
    channel, guest = ends
    guest.sendall(frame(ERROR, b'{"code": "bad-request", "message": "no such probe"}'))
    with pytest.raises(DriverError, match=r"s1 failed at .*'fly'.*: no such probe") as caught:
        channel.run({"probe": "fly"})
    assert caught.value.code == "guest-bad-request"
    guest.sendall(frame(PONG))
    channel.ping()


def test_a_guest_that_was_refused_is_a_protocol_mismatch(ends: Ends) -> None:
    """The guest says that this program does not speak its protocol."""
    channel, guest = ends
    guest.sendall(frame(ERROR, b'{"code": "protocol", "message": "version 1, expected 2"}'))
    with pytest.raises(ProtocolMismatch, match="version 1, expected 2"):
        channel.ping()


def test_the_last_words_of_a_guest_are_heard(ends: Ends) -> None:
    """A guest that failed and hung up is quoted, although nothing can be sent any more."""
    channel, guest = ends
    guest.sendall(frame(ERROR, b'{"code": "listen-failed", "message": "port taken"}'))
    guest.close()
    with pytest.raises(DriverError, match="port taken"):
        channel.run({"probe": "syscall"})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"HTTP/1.1 200 OK", "frame length"),
        (struct.pack("<I", 1), "frame length of 1"),
        (struct.pack("<I", FRAME_BYTES_MAX + 1), "frame length of 1048577"),
        (frame(PONG, version=1), "protocol version 1"),
        (frame(9), "frame type 0x09"),
        (frame(0x11), "frame type 0x11"),
        (frame(PONG, bytes(PING_BYTES_MAX + 1)), "PONG with 65537 payload bytes"),
        (frame(HELLO, bytes(19)), "HELLO with 19 payload bytes"),
        (frame(RESULT, b"{}"), "RESULT instead of PONG"),
        (frame(ERROR, b"{}"), "ERROR without a code"),
        (frame(ERROR, b'{"code": "\\u0007", "message": "x"}'), "ERROR without a code"),
        (frame(READY, bytes(8)) * 3, "READY instead of PONG"),
    ],
)
def test_what_is_not_the_protocol_is_refused(ends: Ends, data: bytes, expected: str) -> None:
    """The error says what came; the channel is of no use afterwards."""
    channel, guest = ends
    guest.sendall(data)
    with pytest.raises(ProtocolMismatch, match=expected):
        channel.ping()
    with pytest.raises(DriverError, match="the control channel is not usable: the guest sent"):
        channel.ping()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1]", "no object but list"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
    ],
)
def test_results_that_are_no_json_objects_are_refused(
    ends: Ends, payload: bytes, expected: str
) -> None:
    """Deep nesting and huge numbers too are errors of the protocol."""
    channel, guest = ends
    guest.sendall(frame(RESULT, payload))
    with pytest.raises(ProtocolMismatch, match=expected):
        channel.run({"probe": "syscall"})


def test_bad_texts_in_hello_and_ready_are_refused(ends: Ends) -> None:
    """A build text must be UTF-8."""
    channel, guest = ends
    guest.sendall(frame(HELLO, hello_payload(b"\xff")))
    with pytest.raises(ProtocolMismatch, match="not UTF-8"):
        channel.hello()


@pytest.mark.parametrize("rest", [b'{"endpoints": 1}', b'{"endpoints": [1]}', b"{}"])
def test_endpoints_must_be_texts(ends: Ends, rest: bytes) -> None:
    """A list of texts and nothing else."""
    channel, guest = ends
    guest.sendall(frame(READY, bytes(8) + rest))
    with pytest.raises(ProtocolMismatch, match="endpoints"):
        channel.ready()


CALLS: list[Callable[[GuestChannel], object]] = [
    lambda channel: channel.hello(timeout_ns=SOON_NS),
    lambda channel: channel.ready(timeout_ns=SOON_NS),
    lambda channel: channel.ping(b"x", timeout_ns=SOON_NS),
    lambda channel: channel.run({"probe": "syscall"}, timeout_ns=SOON_NS),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_silent_guest_is_given_up(ends: Ends, call: Callable[[GuestChannel], object]) -> None:
    """Half a frame is silence too, and a late answer is never taken for the next one's."""
    channel, guest = ends
    guest.sendall(frame(PONG, b"x")[:3])
    with pytest.raises(DriverError, match=r"s1: no answer in time: .* did not come"):
        call(channel)
    guest.sendall(frame(PONG, b"x")[3:])
    with pytest.raises(DriverError, match="the control channel is not usable"):
        call(channel)


@pytest.mark.parametrize("call", CALLS)
def test_a_guest_that_is_gone_is_an_error(
    ends: Ends, call: Callable[[GuestChannel], object]
) -> None:
    """It hung up before it answered."""
    channel, guest = ends
    guest.close()
    with pytest.raises(DriverError, match="s1: it hung up before"):
        call(channel)


def test_a_guest_that_does_not_read_is_given_up(ends: Ends) -> None:
    """A request that does not fit into the socket's buffers ends with its deadline."""
    channel, _ = ends
    with pytest.raises(DriverError, match="it did not take a RUN in time"):
        channel.run({"probe": "x" * 1_000_000}, timeout_ns=SOON_NS)


def test_stop_waits_for_the_guest_to_hang_up(ends: Ends) -> None:
    """What the guest still sends is ignored."""
    channel, guest = ends
    guest.sendall(frame(RESULT, b"{}") * 100)
    guest.shutdown(socket.SHUT_WR)
    channel.stop()
    assert guest.recv(100) == struct.pack("<IBB", 2, 2, 0x13)
    with pytest.raises(DriverError, match="the channel was closed"):
        channel.ping()


def test_stop_of_a_guest_that_is_gone_is_no_error(ends: Ends) -> None:
    """That is what was asked for."""
    channel, guest = ends
    guest.close()
    channel.stop()
    channel.close()


def test_stop_gives_up_a_guest_that_stays(ends: Ends) -> None:
    """The hint says what is left to do."""
    channel, _ = ends
    with pytest.raises(DriverError, match="s1 did not stop within") as caught:
        channel.stop(timeout_ns=SOON_NS)
    assert caught.value.hint == "it can be killed instead"
