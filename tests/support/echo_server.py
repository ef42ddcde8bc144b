"""A small real server on loopback: one thread a connection, bytes back as they came."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

READ_BYTES = 65536


class EchoServer:
    """Serves until the `with` block ends; every thread is joined by then."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        #: Set when the first byte of any client has come.
        self.was_reached = threading.Event()
        self._replies_count = 0
        self._replied = threading.Condition()

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
        for connection in self._connections:
            connection.close()

    def wait_for_replies(self, count: int, *, timeout_s: float) -> None:
        """Waits until it has answered so often, and fails if it does not come to that."""
        with self._replied:
            assert self._replied.wait_for(lambda: self._replies_count >= count, timeout_s)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            thread = threading.Thread(target=self._echo, args=(connection,))
            self._threads.append(thread)
            thread.start()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client closed it before
        for thread in self._threads:
            thread.join()

    def _echo(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(READ_BYTES):
                self.was_reached.set()
                connection.sendall(data)
                with self._replied:
                    self._replies_count += 1
                    self._replied.notify_all()
        except ConnectionError:
            return  # the client is gone
