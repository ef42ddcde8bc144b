"""A TCP proxy for the rpc protocol that flips one bit in the payload of one reply."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

READ_BYTES: Final = 65536
HEADER_BYTES: Final = 48
_LENGTH: Final = struct.Struct("<I")


class FlippingProxy:
    """Passes everything on, but for one bit; counts replies with a payload over all connections."""

    def __init__(self, upstream: tuple[str, int], *, reply: int, offset: int, bit: int) -> None:
        """Flip ``bit`` of the byte at ``offset`` of the payload of the ``reply``-th such reply."""
        self._upstream = upstream
        self._reply, self._offset, self._bit = reply, offset, bit
        self._lock = threading.Lock()
        self._replies_count = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)

    @property
    def target(self) -> str:
        """Where it listens, in the form that the load engine takes."""
        host, port = self._listener.getsockname()
        return f"tcp://{host}:{port}"

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed by its peer before
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            for work in (self._requests, self._replies):
                thread = threading.Thread(target=work, args=(client, server))
                self._threads.append(thread)
                thread.start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(READ_BYTES):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            return  # one of them is gone

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        held = bytearray()
        try:
            while data := server.recv(READ_BYTES):
                held += data
                while (frame := self._frame(held)) is not None:
                    client.sendall(frame)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            return  # one of them is gone

    def _frame(self, held: bytearray) -> bytes | None:
        """Takes one whole reply off the front, if there is one."""
        if len(held) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(held)
        end = _LENGTH.size + length
        if len(held) < end:
            return None
        frame = bytearray(held[:end])
        del held[:end]
        if end > HEADER_BYTES:
            with self._lock:
                self._replies_count += 1
                is_chosen = self._replies_count == self._reply
            if is_chosen:
                frame[HEADER_BYTES + self._offset] ^= 1 << self._bit
        return bytes(frame)
