"""An echo server that knows when the kernel received each request, however late it reads it."""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

from tests.support.echo_server import READ_BYTES, EchoServer

#: From the kernel's `asm-generic/socket.h`; Python has no name for it.
SO_TIMESTAMPNS: Final = 35
_STAMP: Final = struct.Struct("qq")
_SECOND_NS: Final = 1_000_000_000


class StampingServer(EchoServer):
    """Keeps the kernel's receive stamp of the first byte of every read."""

    def __init__(self) -> None:
        super().__init__()
        # Connections inherit it, so that it is on before the first request.
        self._listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._stamps: list[int] = []

    @property
    def received_at_ns(self) -> list[int]:
        """All stamps in order, on the timeline of `time.monotonic_ns()`."""
        # The kernel stamps wall-clock time. The nearest of some readings has no pause in it.
        readings = []
        for _ in range(100):
            before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
            readings.append((after - before, wall - before))
        _, offset_ns = min(readings)
        return sorted(stamp - offset_ns for stamp in self._stamps)

    def _echo(self, connection: socket.socket) -> None:
        try:
            while True:
                data, about, _flags, _sender = connection.recvmsg(READ_BYTES, 128)
                if not data:
                    return
                for level, kind, content in about:
                    if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                        seconds, nanos = _STAMP.unpack(content[: _STAMP.size])
                        self._stamps.append(seconds * _SECOND_NS + nanos)
                connection.sendall(data)
        except ConnectionError:
            return  # the client is gone
