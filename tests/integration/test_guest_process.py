"""The real guest as a plain process, through the host's end of its channel."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from seatrial.errors import DriverError
from seatrial.guest.binary import guest_binary
from seatrial.guest.channel import GuestChannel
from seatrial.guest.rootfs import GUEST_PATH, build_rootfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 60
SIZE_BYTES_MAX = 5_000_000


@contextmanager
def running(*role: str, argv: tuple[str, ...] = ()) -> Iterator[tuple[GuestChannel, int]]:
    """A guest with its channel on descriptor 0; yields the channel and the process id."""
    host, inside = socket.socketpair()
    command = argv or (str(guest_binary()), "--channel-fd", "0")
    with inside:
        guest = subprocess.Popen([*command, *role], stdin=inside)
    try:
        with GuestChannel(host) as channel:
            yield channel, guest.pid
        assert guest.wait(timeout=PATIENCE_S) == 0
    finally:
        guest.kill()
        guest.wait()


def test_a_guest_says_hello_gets_ready_answers_and_stops() -> None:
    """The whole conversation of an idle guest."""
    with running("idle") as (channel, pid):
        hello = channel.hello()
        assert hello.pid == pid
        assert hello.build.startswith("seatrial-guest ")
        assert hello.first_instruction_mono_ns <= hello.hello_mono_ns
        assert channel.ready().ready_mono_ns >= hello.hello_mono_ns
        channel.ping(b"x" * 65536)
        channel.stop()


@pytest.mark.parametrize(
    ("request_", "operations", "size_bytes"),
    [
        ({"probe": "syscall", "iterations": 50}, 50, None),
        ({"probe": "page-fault", "pages": 8}, 8, 8 * os.sysconf("SC_PAGESIZE")),
        ({"probe": "file-write", "bytes": 10_000, "sync": True}, 3, 10_000),
        ({"probe": "file-read", "bytes": 10_000, "block_bytes": 1000}, 10, 10_000),
        ({"probe": "spin", "cpu_ns": 1000}, 1, None),
    ],
)
def test_probes_give_raw_batches(
    request_: dict[str, object], operations: int, size_bytes: int | None, tmp_path: Path
) -> None:
    """Each batch has a duration; operations and bytes are those of one batch."""
    if str(request_["probe"]).startswith("file"):
        request_ = {**request_, "path": str(tmp_path)}
    with running("idle") as (channel, _):
        result = channel.run({**request_, "batches": 4})
    durations = result["batch_ns"]
    assert isinstance(durations, list)
    assert len(durations) == 4
    assert all(duration > 0 for duration in durations)
    assert result["operations_per_batch"] == operations
    assert result["bytes_per_batch"] == size_bytes
    assert result["clock"] == "monotonic"
    assert not list(tmp_path.iterdir())


def test_a_command_is_run_and_described() -> None:
    """Exit status, output and use of resources."""
    argv = ["/bin/sh", "-c", "echo out; echo err >&2; exit 4"]
    with running("idle") as (channel, _):
        result = channel.run({"probe": "exec", "argv": argv})
    assert (result["exit_code"], result["signal"], result["timed_out"]) == (4, None, False)
    assert (result["stdout"], result["stderr"]) == ("out\n", "err\n")


def test_refusals_carry_the_guests_code() -> None:
    """The guest lives on after a bad request."""
    with running("idle") as (channel, _):
        with pytest.raises(DriverError, match="unknown variant `fly`") as caught:
            channel.run({"probe": "fly"})
        assert caught.value.code == "guest-bad-request"
        channel.ping()


def test_a_served_address_can_be_connected_to() -> None:
    """The endpoint in READY is the bound one."""
    role = ("serve", "--protocol", "echo", "--listen", "tcp:127.0.0.1:0")
    with running(*role) as (channel, _):
        channel.hello()
        (endpoint,) = channel.ready().endpoints
        kind, host, port = endpoint.split(":")
        assert kind == "tcp"
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
            client.sendall(b"ahoy")
            assert client.recv(4, socket.MSG_WAITALL) == b"ahoy"


def test_the_binary_is_static_and_small() -> None:
    """No interpreter is named in it, so it runs in an empty root."""
    path = guest_binary()
    assert path.stat().st_size < SIZE_BYTES_MAX
    headers = subprocess.run(
        ["readelf", "--program-headers", path], check=True, capture_output=True, text=True
    )
    assert "INTERP" not in headers.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_the_guest_needs_nothing_but_its_root(tmp_path: Path) -> None:
    """Process 1 of a namespace, no /proc, no devices, standard output and error closed."""
    root = build_rootfs(tmp_path / "root", guest_binary())
    inner = f"exec chroot {root} {GUEST_PATH} --channel-fd 0 idle >&- 2>&-"
    argv = ("unshare", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", inner)
    with running(argv=argv) as (channel, _):
        assert channel.hello().pid == 1
        channel.ready()
        result = channel.run({"probe": "exec", "argv": [GUEST_PATH, "version"]})
        assert result["exit_code"] == 0
        assert str(result["stdout"]).startswith("seatrial-guest ")
        channel.stop()
