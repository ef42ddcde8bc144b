"""The guest's echo and rpc servers over TCP, unix sockets and UDP, through raw sockets."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from seatrial.errors import DriverError
from tests.support import served
from tests.support.served import CHECKSUM, EMPTY, SPIN, SPIN_WALL, TOUCH, serving

LOCAL = ("--listen", "tcp:127.0.0.1:0")
LOCAL_UDP = ("--listen", "udp:127.0.0.1:0")


def test_counters_are_what_was_sent(tmp_path: Path) -> None:
    """Requests by operation, replies, bytes and connections, over TCP and unix, summed exactly."""
    path = f"unix:{tmp_path}/s"
    sent = received = 0
    with serving("--protocol", "rpc", *LOCAL, "--listen", path, "--workers", "3") as server:
        for index in range(2):
            for _ in range(5):
                with server.connect(index) as client:
                    for data in (
                        served.request(EMPTY, payload=b"x" * 10),
                        served.checked(request_id=2, reply_bytes=100, payload=b"y" * 33),
                        served.request(SPIN, argument=1000),
                    ):
                        client.sendall(data)
                        reply = served.receive(client)
                        sent += len(data)
                        received += 48 + len(reply.payload)
        stats = server.settled()
    assert stats.protocol == "rpc"
    assert (stats.accepted_connections, stats.closed_connections) == (10, 10)
    assert (stats.refused_connections, stats.bad_requests, stats.dropped_datagrams) == (0, 0, 0)
    assert (stats.requests, stats.replies) == (30, 30)
    assert (stats.received_bytes, stats.sent_bytes) == (sent, received)
    assert {name: count for name, count in stats.operations.items() if count} == {
        "empty": 10,
        "checksum": 10,
        "spin": 10,
    }
    assert sum(stats.worker_requests) == 30
    assert len(stats.worker_requests) == 3
    assert (stats.service_histogram.count, stats.queue_histogram.count) == (30, 30)
    longest = stats.service_histogram.max_ns
    assert longest is not None
    assert longest >= 1000


def test_checksum_replies_are_new_and_can_be_made_again() -> None:
    """Each payload is new, belongs to its seed, has its sum, and repeats with the server's seed."""

    def replies(seed: int) -> list[served.Reply]:
        options = ("--protocol", "rpc", *LOCAL, "--seed", str(seed))
        with serving(*options) as server, server.connect() as client:
            for number in range(4):
                client.sendall(served.checked(request_id=number, reply_bytes=2048 + number))
            return [served.receive(client) for _ in range(4)]

    first, again, other = replies(7), replies(7), replies(8)
    for number, reply in enumerate(first):
        assert (reply.status, reply.request_id) == (served.OK, number)
        assert reply.payload == served.payload_of(reply.seed, 2048 + number)
        assert reply.value == served.xxh64(reply.payload, reply.seed)
    assert len({reply.seed for reply in first + other}) == 8
    assert [reply.payload for reply in first] == [reply.payload for reply in again]


def test_a_damaged_request_is_told_with_the_servers_sum() -> None:
    """The connection goes on: the damage is in the payload, not in the framing."""
    payload = bytearray(b"z" * 3000)
    with serving("--protocol", "rpc", *LOCAL) as server, server.connect() as client:
        good = served.checked(request_id=1, reply_bytes=8, payload=bytes(payload))
        client.sendall(good[:2000] + b"Z" + good[2001:])
        reply = served.receive(client)
        payload[2000 - 32] = ord("Z")
        assert (reply.status, reply.payload) == (served.CHECKSUM_MISMATCH, b"")
        assert reply.value == served.xxh64(bytes(payload), 0)
        client.sendall(good)
        assert served.receive(client).status == served.OK


def test_eight_requests_in_one_write_are_eight_replies_in_order() -> None:
    """Their queue times grow: each waited for those before it."""
    with serving("--protocol", "rpc", *LOCAL) as server, server.connect() as client:
        operations = (EMPTY, CHECKSUM, SPIN_WALL, EMPTY, TOUCH, SPIN, EMPTY, EMPTY)
        requests = []
        for number, operation in enumerate(operations):
            argument = {SPIN_WALL: 2_000_000, SPIN: 1_000_000, TOUCH: 8192}.get(operation, 0)
            if operation == CHECKSUM:
                requests.append(served.checked(request_id=number, reply_bytes=64))
            else:
                data = served.request(operation, request_id=number, argument=argument)
                requests.append(data)
        client.sendall(b"".join(requests))
        replies = [served.receive(client) for _ in operations]
        assert [reply.request_id for reply in replies] == list(range(8))
        assert all(reply.status == served.OK for reply in replies)
        queued = [reply.queue_ns for reply in replies]
        assert queued == sorted(queued)
        assert queued[3] >= replies[2].service_ns >= 2_000_000
        assert queued[6] >= replies[5].service_ns + queued[5]
        assert server.stats().requests == 8


def test_half_closed_connections_get_all_replies() -> None:
    """The client's FIN ends its requests, not the server's replies."""
    with serving("--protocol", "rpc", *LOCAL) as server:
        with server.connect() as client:
            client.sendall(served.checked(request_id=1, reply_bytes=1 << 20) * 3)
            client.shutdown(socket.SHUT_WR)
            for _ in range(3):
                assert len(served.receive(client).payload) == 1 << 20
            assert client.recv(1) == b""
        with server.connect() as client:
            client.sendall(served.request(EMPTY)[:-1])
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        stats = server.settled()
    assert (stats.requests, stats.bad_requests) == (3, 1)


def test_one_byte_at_a_time() -> None:
    """A short read is not the end of a request."""
    with serving("--protocol", "rpc", *LOCAL) as server, server.connect() as client:
        for byte in served.checked(request_id=5, reply_bytes=40, payload=b"slow") * 2:
            client.sendall(bytes([byte]))
        assert [served.receive(client).request_id for _ in range(2)] == [5, 5]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 5, os.urandom(64)])
def test_garbage_is_refused_and_counted(garbage: bytes) -> None:
    """The connection is closed after one refusal; the next one is served."""
    with serving("--protocol", "rpc", *LOCAL) as server:
        with server.connect() as client:
            client.sendall(garbage)
            assert served.receive(client).status in {served.BAD_REQUEST, served.TOO_LARGE}
            assert client.recv(1) == b""
        with server.connect() as client:
            client.sendall(served.request(EMPTY))
            assert served.receive(client).status == served.OK
        stats = server.settled()
    assert (stats.requests, stats.replies, stats.bad_requests) == (1, 2, 1)


def test_a_client_that_never_reads_is_bounded() -> None:
    """One that asks for 200 MiB and takes nothing costs memory for little, and no one else."""
    with serving("--protocol", "rpc", *LOCAL) as server:
        with server.connect() as deaf, server.connect() as other:
            deaf.sendall(served.checked(request_id=1, reply_bytes=1 << 20) * 200)
            for _ in range(100):
                other.sendall(served.request(EMPTY))
                assert served.receive(other).status == served.OK
            assert resident_bytes(server.pid) < 64 << 20
            # It is served to the end when it reads at last.
            for _ in range(200):
                assert len(served.receive(deaf).payload) == 1 << 20
        assert server.settled().requests == 300


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    statm = Path(f"/proc/{pid}/statm").read_text()
    return int(statm.split()[1]) * os.sysconf("SC_PAGESIZE")


def test_datagrams_are_requests() -> None:
    """Replies carry the ids; what is no request is counted and gets no reply."""
    with serving("--protocol", "rpc", *LOCAL_UDP, "--workers", "2") as server:
        assert server.endpoints[0].startswith("udp:127.0.0.1:")
        with server.connect() as client:
            for bad in (b"", b"garbage", served.request(EMPTY)[:-1], served.request(EMPTY) * 2):
                client.send(bad)
            ids = set()
            for number in range(50):
                client.send(served.checked(request_id=number, reply_bytes=1400))
            for _ in range(50):
                reply = served.parse(client.recv(65536))
                assert reply.payload == served.payload_of(reply.seed, 1400)
                assert reply.value == served.xxh64(reply.payload, reply.seed)
                ids.add(reply.request_id)
            assert ids == set(range(50))
            client.send(served.checked(request_id=99, reply_bytes=65507 - 47))
            assert served.parse(client.recv(65536)).status == served.TOO_LARGE
            client.send(served.checked(request_id=99, reply_bytes=65507 - 48))
            assert len(served.parse(client.recv(65536)).payload) == 65507 - 48
        stats = server.stats()
    assert (stats.requests, stats.replies, stats.bad_requests) == (52, 52, 4)
    assert stats.accepted_connections == 0


def test_datagrams_are_echoed() -> None:
    """Content, length and count, the empty one included."""
    with serving("--protocol", "echo", *LOCAL_UDP) as server, server.connect() as client:
        for data in (b"", b"x", os.urandom(65507)):
            client.send(data)
            assert client.recv(65536) == data
        stats = server.stats()
    assert (stats.requests, stats.operations) == (3, {"echo": 3})
    assert stats.received_bytes == stats.sent_bytes == 65508


def test_lost_datagrams_are_counted_and_repeat() -> None:
    """The same seed loses the same datagrams; nothing else is lost."""

    def answered(seed: int) -> set[int]:
        options = ("--protocol", "rpc", *LOCAL_UDP, "--drop-ratio", "0.1", "--seed", str(seed))
        ids: set[int] = set()
        with serving(*options) as server, server.connect() as client:
            # A hundred at a time, which no socket's buffer is too small for.
            for sent in range(100, 1001, 100):
                for number in range(sent - 100, sent):
                    client.send(served.request(EMPTY, request_id=number))
                while (stats := server.stats()).requests + stats.dropped_datagrams < sent:
                    pass
                while len(ids) < stats.requests:
                    ids.add(served.parse(client.recv(100)).request_id)
            assert stats.dropped_datagrams == 1000 - len(ids)
        return ids

    first = answered(1)
    assert 850 < len(first) < 950
    assert answered(1) == first
    assert answered(2) != first


def test_echo_counts_bytes_and_has_no_requests() -> None:
    """A stream of bytes has no begin and end to time."""
    with serving("--protocol", "echo", *LOCAL) as server:
        with server.connect() as client:
            client.sendall(b"abc")
            assert served.exactly(client, 3) == b"abc"
        stats = server.settled()
    assert (stats.requests, stats.received_bytes, stats.sent_bytes) == (0, 3, 3)
    assert stats.service_histogram.count == 0


def test_a_frozen_server_answers_all_once_it_goes_on() -> None:
    """Nothing is lost or answered twice."""
    with serving("--protocol", "rpc", *LOCAL) as server, server.connect() as client:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            client.sendall(served.request(EMPTY) * 10)
            client.settimeout(0)
            with pytest.raises(BlockingIOError):
                client.recv(1)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        client.settimeout(served.PATIENCE_S)
        assert [served.receive(client).status for _ in range(10)] == [served.OK] * 10
        assert server.stats().requests == 10


def test_only_a_server_has_counts() -> None:
    """Another role says so, and lives on."""
    with served.guest("idle") as (channel, _):
        channel.hello()
        with pytest.raises(DriverError) as caught:
            channel.stats()
        assert caught.value.code == "guest-no-server"
        channel.ping()
