"""The guest's HTTP server through raw sockets and through Python's own client."""

from __future__ import annotations

import http.client
import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support import served
from tests.support.served import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTIONS = ("--protocol", "http", "--listen", "tcp:127.0.0.1:0", "--workers", "2")


@pytest.fixture
def server() -> Iterator[served.Served]:
    """An HTTP server of two workers."""
    with serving(*OPTIONS) as running:
        yield running


def client_of(server: served.Served) -> http.client.HTTPConnection:
    """Python's client, connected."""
    client = http.client.HTTPConnection("localhost", timeout=served.PATIENCE_S)
    client.sock = server.connect()
    return client


def test_another_client_understands_every_path(server: served.Served) -> None:
    """Statuses, bodies, chunks and times, on one connection."""
    data = os.urandom(300_000)
    client = client_of(server)
    for method, path, body, status, expected in (
        ("GET", "/", None, 200, b"ok\n"),
        ("GET", "/ok", None, 200, b"ok\n"),
        ("GET", "/bytes/1048576", None, 200, b"x" * 1048576),
        ("HEAD", "/bytes/1048576", None, 200, b""),
        ("GET", "/chunked/10000", None, 200, b"x" * 10000),
        ("POST", "/echo", data, 200, data),
        ("POST", "/ok", data, 200, b"ok\n"),
        ("GET", "/spin/100us", None, 200, b"ok\n"),
        ("GET", "/spin_wall/3ms", None, 200, b"ok\n"),
        ("GET", "/sleep/3ms", None, 200, b"ok\n"),
        ("GET", "/touch/1000000", None, 200, b"ok\n"),
        ("GET", "/status/503", None, 503, b"ok\n"),
        ("GET", "/status/204", None, 204, b""),
    ):
        client.request(method, path, body)
        reply = client.getresponse()
        assert (reply.status, reply.read()) == (status, expected), path
        service_ns = int(reply.headers["x-seatrial-service-ns"])
        assert service_ns >= (3_000_000 if path.endswith("3ms") else 0)
    client.request("POST", "/echo", iter([data[:1000], data[1000:]]), encode_chunked=True)
    assert client.getresponse().read() == data
    for path, status in (("/nowhere", 404), ("/sleep/61s", 400), ("/bytes/1048577", 400)):
        client.request("GET", path)
        reply = client.getresponse()
        assert reply.status == status
        assert reply.read().startswith(b"expected ")
    client.request("DELETE", "/")
    reply = client.getresponse()
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")
    reply.read()
    client.request("GET", "/close")
    assert client.getresponse().headers["connection"] == "close"
    client.close()
    stats = server.settled()
    assert (stats.requests, stats.bad_requests, stats.replies) == (15, 2, 19)
    assert (
        stats.unknown_requests == 2
    )  # well-formed, for a path and with a method that are not there
    assert stats.operations["echo"] == 2
    assert stats.operations["spin_wall"] == stats.operations["sleep"] == 1
    assert stats.accepted_connections == 1


def test_eight_requests_in_one_write_are_eight_replies_in_order(server: served.Served) -> None:
    """Each reply is told apart by its length."""
    with server.connect() as client:
        sizes = (5, 0, 17, 4, 1000, 1, 2, 3)
        requests = [f"GET /bytes/{size} HTTP/1.1\r\nHost: x\r\n\r\n" for size in sizes]
        client.sendall("".join(requests).encode())
        client.shutdown(socket.SHUT_WR)
        text = served.until_closed(client).decode()
    found = [part for part in text.split("HTTP/1.1 200 OK") if part]
    assert [part.count("x") - part.count("x-seatrial") - 1 for part in found] == list(sizes)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 20_000, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_what_is_not_http_is_told_and_closed(
    server: served.Served, data: bytes, status: int
) -> None:
    """A typed reply, the end of that connection, and service for all others."""
    with server.connect() as client:
        client.sendall(data)
        reply = served.until_closed(client)
        assert reply.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close\r\n" in reply
    other = client_of(server)
    other.request("GET", "/")
    assert other.getresponse().read() == b"ok\n"
    other.close()
    stats = server.settled()
    assert (stats.requests, stats.bad_requests) == (1, 1)


def test_a_slow_head_is_ended_and_holds_nobody_up(server: served.Served) -> None:
    """Ten seconds after its first byte, however it trickles; one that rests stays."""
    with server.connect() as slow, server.connect() as resting:
        resting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in resting.recv(1000)
        slow.sendall(b"GET / HTTP/1.1\r\n")
        slow.settimeout(1)
        reply = b""
        for _ in range(served.PATIENCE_S):
            try:
                reply = slow.recv(1000)
                break
            except TimeoutError:
                slow.sendall(b"a: b\r\n")
        assert reply.startswith(b"HTTP/1.1 408 ")
        resting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in resting.recv(1000)


def test_one_byte_at_a_time(server: served.Served) -> None:
    """A head and a body that come in bytes are a request."""
    with server.connect() as client:
        data = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nping"
        for byte in data:
            client.sendall(bytes([byte]))
        client.shutdown(socket.SHUT_WR)
        assert served.until_closed(client).endswith(b"\r\n\r\nping")


def test_http_10_closes_unless_asked_not_to(server: served.Served) -> None:
    """As the old version of the protocol has it."""
    with server.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"connection: keep-alive\r\n" in client.recv(1000)
        client.sendall(b"GET /chunked/3 HTTP/1.0\r\n\r\n")
        reply = served.until_closed(client)
        assert reply.endswith(b"\r\n\r\nxxx")
        assert b"chunked" not in reply
