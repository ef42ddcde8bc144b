"""``seatrial serve`` as a user runs it: endpoints, counts at the end, mistakes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from tests.support import served

COMMAND = (sys.executable, "-m", "seatrial", "serve")


def started(*options: str) -> subprocess.Popen[str]:
    """The command, running."""
    return subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def connected(endpoint: str) -> socket.socket:
    """A client of `tcp:IP:PORT`."""
    _, host, port = endpoint.strip().split(":")
    return socket.create_connection((host, int(port)), timeout=served.PATIENCE_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_told_and_tells_what_it_counted(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM are the ordinary end."""
    with started("--listen", "tcp:127.0.0.1:0", "--json") as command:
        assert command.stdout is not None
        (endpoint,) = json.loads(command.stdout.readline())["endpoints"]
        with connected(endpoint) as client:
            for request_id in range(400):
                client.sendall(served.request(served.EMPTY, request_id=request_id))
                assert served.receive(client).request_id == request_id
            command.send_signal(number)
            out, err = command.communicate(timeout=served.PATIENCE_S)
    assert command.returncode == 0, err
    counts = json.loads(out)
    assert (counts["requests"], counts["replies"], counts["bad_requests"]) == (400, 400, 0)
    assert counts["operations"]["empty"] == 400
    # Enough for p99, not for p99.9.
    assert set(counts["service_time_ns"]) == {"p50", "p90", "p95", "p99", "max"}


def test_a_person_gets_a_table() -> None:
    """Endpoints first, counts last, talk on standard error."""
    with started("http", "--listen", "tcp:127.0.0.1:0", "--workers", "2") as command:
        assert command.stdout is not None
        endpoint = command.stdout.readline()
        with connected(endpoint) as client:
            client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 404 ")
            client.sendall(b"GET /close HTTP/1.1\r\nHost: x\r\n\r\n")
            assert served.until_closed(client).endswith(b"ok\n")
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=served.PATIENCE_S)
    assert command.returncode == 0, err
    assert "requests      1 (close 1)" in out
    assert "bad requests  0" in out
    assert "not found     1" in out  # nothing was wrong with the request
    assert "queue time    none: no request was read together with others" in out
    assert "service time  max " in out
    assert "Ctrl-C" in err


@pytest.mark.parametrize("is_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize("has_datagrams", [False, True], ids=["streams", "both"])
def test_an_echo_of_streams_has_bytes_and_no_messages(
    *, has_datagrams: bool, is_json: bool
) -> None:
    """What comes over a stream is not counted, which is not 0; each datagram is a request."""
    options = ["--listen", "tcp:127.0.0.1:0"]
    options += ["--listen", "udp:127.0.0.1:0"] if has_datagrams else []
    options += ["--json"] if is_json else []
    with started("echo", *options) as command:
        assert command.stdout is not None
        if is_json:
            endpoints = json.loads(command.stdout.readline())["endpoints"]
        else:
            endpoints = [command.stdout.readline().strip() for _ in range(1 + has_datagrams)]
        with connected(endpoints[0]) as client:
            client.sendall(b"twelve bytes")
            assert client.recv(100) == b"twelve bytes"
        if has_datagrams:
            _, host, port = endpoints[1].split(":")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(served.PATIENCE_S)
                client.connect((host, int(port)))
                client.send(b"eight by")
                assert client.recv(100) == b"eight by"
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=served.PATIENCE_S)
    assert command.returncode == 0, err
    moved = 20 if has_datagrams else 12
    if is_json:
        counts = json.loads(out)
        assert counts["uncounted_endpoints"] == endpoints[:1]
        counted = 1 if has_datagrams else None
        for name in ("requests", "replies"):
            assert counts[name] == counted
        assert (counts["service_time_ns"] is None) is not has_datagrams
        assert (counts["received_bytes"], counts["sent_bytes"]) == (moved, moved)
        return
    told = "1 (echo 1), datagrams only" if has_datagrams else "not counted (byte stream)"
    assert f"requests      {told}\n" in out
    told = "1, datagrams only" if has_datagrams else "not counted (byte stream)"
    assert f"replies       {told}\n" in out
    assert ("service time  not counted (byte stream)" in out) is not has_datagrams
    assert f"{moved} B in, {moved} B out" in out


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (("--workers", "0"), 2, "--workers 0, expected a number from 1"),
        (("--listen", "7000"), 2, "--listen 7000, expected tcp:IP:PORT"),
        (("http", "--listen", "udp:127.0.0.1:0"), 2, "for the protocols echo and rpc"),
        (("--drop-ratio", "0.1"), 2, "--drop-ratio is about datagrams"),
        (("smtp",), 2, "got 'smtp'; expected one of 'echo', 'rpc', 'http', 'grpc'"),
    ],
)
def test_mistakes_are_told(options: tuple[str, ...], code: int, expected: str) -> None:
    """What was wrong and what was expected, and exit code 2."""
    with started(*options) as command:
        out, err = command.communicate(timeout=served.PATIENCE_S)
    assert (command.returncode, out) == (code, "")
    assert expected in err


def test_a_taken_port_is_the_machines_trouble() -> None:
    """Exit code 3, with the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        with started("--listen", address) as command:
            _, err = command.communicate(timeout=served.PATIENCE_S)
    assert command.returncode == 3
    assert f"cannot listen on {address}" in err
