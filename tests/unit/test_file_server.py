"""Our own HTTP server: the whole file, uploads of a known length, nothing that hangs or grows."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING

import pytest

from seatrial.benches.file_server import FileServer, address_towards, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 5000
HOST = "127.0.0.1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    """A server of a file of 1.28 MB."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with FileServer(path, address=HOST) as running:
        yield running


def ask(server: FileServer, method: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    try:
        connection.request(method, "/any/name", body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_downloads_are_whole(server: FileServer) -> None:
    """Whoever asks, and whatever for, gets the same file (G7, G9)."""
    assert ask(server, "GET") == (200, CONTENT)
    assert ask(server, "GET") == (200, CONTENT)


def test_uploads_are_taken_and_bounded(server: FileServer) -> None:
    """Up to the size of the file; more is refused before it is read."""
    assert ask(server, "PUT", CONTENT) == (200, b"")
    assert ask(server, "PUT", b"")[0] == 200
    with socket.create_connection((HOST, server.port), timeout=10) as stream:
        length = len(CONTENT) + 1
        stream.sendall(f"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        assert b" 413 " in stream.recv(4096)


def test_expectations_are_answered(server: FileServer) -> None:
    """A client may ask before it sends a large body."""
    with socket.create_connection((HOST, server.port), timeout=10) as stream:
        head = "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        stream.sendall(head.encode())
        assert stream.recv(4096).startswith(b"HTTP/1.1 100 ")
        stream.sendall(b"abc")
        assert b" 200 " in stream.recv(4096)


def test_a_length_that_is_none_is_refused(server: FileServer) -> None:
    """It could not be bounded."""
    with socket.create_connection((HOST, server.port), timeout=10) as stream:
        stream.sendall(b"PUT /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 413 " in stream.recv(4096)


def test_closing_ends_it(tmp_path: Path) -> None:
    """Nobody listens afterwards."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with FileServer(path, address=HOST) as running:
        port = running.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=10)


def test_addresses_and_ports() -> None:
    """The way to ourselves begins at ourselves, and a free port can be taken."""
    assert address_towards(HOST) == HOST
    with socket.create_server((HOST, free_port(HOST))) as taken:
        assert taken.getsockname()[0] == HOST
