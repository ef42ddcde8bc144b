"""A guest on a thread: answers the control channel as a sandbox's guest would, from a model.

It speaks the same frames as the real one (``seatrial_core::control``), so that whatever holds the
host's end cannot tell the difference, except by numbers that are too good to be true.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = 2
PONG, RESULT, ERROR = 0x03, 0x04, 0x05
PING, RUN, STOP, GIVE_STATS = 0x11, 0x12, 0x13, 0x14
FRAME_BYTES_MAX: Final = 1 << 20
#: Relative spread of the modelled batches around their cost.
SPREAD: Final = 0.02
_HEADER: Final = struct.Struct("<IBB")


class FakeGuest:
    """The far end of a control channel."""

    def __init__(self, costs_ns: Mapping[str, int], *, seed: int) -> None:
        """Begin to answer; ``costs_ns`` is the cost of one operation of each probe."""
        self._costs_ns = costs_ns
        self._random = random.Random(seed)
        self.host_end, self._end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve, name="seatrial-fake-guest", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up and end; the host's end belongs to whom it was given."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._end.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                length, version, kind = _HEADER.unpack(self._read(_HEADER.size))
                payload = self._read(length - 2)
                if version != VERSION or kind == STOP:
                    return
                self._answer(kind, payload)

    def _answer(self, kind: int, payload: bytes) -> None:
        if kind == PING:
            self._send(PONG, payload)
        elif kind == RUN:
            self._run(payload)
        elif kind == GIVE_STATS:
            self._fail("no-server", "a modelled server is part of the load engine, not of a guest")
        else:
            self._fail("bad-request", f"frames of type {kind:#x} are not for guests")

    def _run(self, payload: bytes) -> None:
        try:
            request = json.loads(payload)
            probe = str(request["probe"])
            batches = int(request.get("batches", 1))
        except (ValueError, KeyError, TypeError) as error:
            self._fail("bad-request", f"not a probe request: {error}")
            return
        if probe not in self._costs_ns:
            self._fail("bad-request", f"the model knows no probe {probe!r}")
            return
        operations = operations_of(request)
        cost_ns = self._costs_ns[probe] * operations
        spread = [1 + self._random.gauss(0, SPREAD) for _ in range(batches)]
        answer = {
            "probe": probe,
            "operations_per_batch": operations,
            "batch_ns": [max(1, round(cost_ns * factor)) for factor in spread],
            "bytes_per_batch": request.get("bytes"),
            "clock": "monotonic",
        }
        self._send(RESULT, json.dumps(answer).encode())

    def _fail(self, code: str, message: str) -> None:
        self._send(ERROR, json.dumps({"code": code, "message": message}).encode())

    def _send(self, kind: int, payload: bytes) -> None:
        self._end.sendall(_HEADER.pack(len(payload) + 2, VERSION, kind) + payload)

    def _read(self, count: int) -> bytes:
        if not 0 <= count <= FRAME_BYTES_MAX:
            raise EOFError
        data = bytearray()
        while len(data) < count:
            chunk = self._end.recv(count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)


def operations_of(request: Mapping[str, object]) -> int:
    """Give how many operations a batch of a probe request has."""
    for name in ("iterations", "pages"):
        value = request.get(name)
        if isinstance(value, int):
            return value
    size, block = request.get("bytes"), request.get("block_bytes")
    if isinstance(size, int) and isinstance(block, int) and block > 0:
        return -(-size // block)
    return 1
