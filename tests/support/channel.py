"""A second, independent client of the control channel, so that tests do not trust the first."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import socket
    from types import TracebackType

VERSION = 2
PONG, RESULT, ERROR = 0x03, 0x04, 0x05
PING, RUN, STOP = 0x11, 0x12, 0x13
HEADER = struct.Struct("<IBB")
TIMEOUT_S = 30.0


class Channel:
    """One blocking conversation with a guest."""

    def __init__(self, stream: socket.socket) -> None:
        """Take over a connected stream."""
        self.stream = stream
        self.stream.settimeout(TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stream.close()

    def ping(self, payload: bytes) -> bytes:
        """Send a PING and give what came back."""
        self.send(PING, payload)
        kind, answer = self.receive()
        assert kind == PONG, (kind, answer)
        return answer

    def run(self, request: dict[str, object]) -> dict[str, object]:
        """Run a probe and give its RESULT."""
        self.send(RUN, json.dumps(request).encode())
        kind, answer = self.receive()
        assert kind == RESULT, (kind, answer)
        decoded: dict[str, object] = json.loads(answer)
        return decoded

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send one frame."""
        self.stream.sendall(HEADER.pack(len(payload) + 2, VERSION, kind) + payload)

    def receive(self) -> tuple[int, bytes]:
        """Receive one frame."""
        length, version, kind = HEADER.unpack(self._read(HEADER.size))
        assert version == VERSION
        return kind, self._read(length - 2)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self.stream.recv(count - len(data))
            assert chunk, "the guest hung up"
            data += chunk
        return data
