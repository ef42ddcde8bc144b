"""A small HTTP server that sends one file and takes uploads, for downloads into sandboxes.

It belongs to the tool, so that no number depends on a server that is far away or changes. The file
is sent by the kernel (``sendfile``) and uploads are thrown away as they come, each with a bound.
"""

from __future__ import annotations

import http.server
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

#: A connection that says nothing for so long is given up.
SILENCE_S: Final = 30.0
CHUNK_BYTES: Final = 1 << 20


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET with the file, and PUT with nothing."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE_S
    path_to_send: ClassVar[Path]
    upload_bytes_max: ClassVar[int]

    def do_GET(self) -> None:
        """Send the file."""
        with self.path_to_send.open("rb") as file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(self.path_to_send.stat().st_size))
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(file)

    def do_PUT(self) -> None:
        """Take an upload whose length is told and not too large."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > self.upload_bytes_max:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        left = int(length)
        while left > 0 and (chunk := self.rfile.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
        self.send_response(HTTPStatus.OK if left == 0 else HTTPStatus.BAD_REQUEST)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle_expect_100(self) -> bool:
        """Leave the answer to ``Expect`` to the method, which knows the length."""
        return True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Say nothing."""


class FileServer:
    """Serves on one address until it is closed; leaving the ``with`` block closes it."""

    def __init__(self, path: Path, *, address: str) -> None:
        """Begin to serve a file on a port that the kernel chooses.

        Raises:
            OSError: the address is not this machine's.
        """
        handler = type(
            "Handler",
            (_Handler,),
            {"path_to_send": path, "upload_bytes_max": path.stat().st_size},
        )
        self._server = http.server.ThreadingHTTPServer((address, 0), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="seatrial-file-server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving; may be called again."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def address_towards(address: str) -> str:
    """Give the address by which this machine speaks to another one: the kernel's own choice.

    Raises:
        OSError: there is no way there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # nothing is sent: the port is never used
        return str(probe.getsockname()[0])


def free_port(address: str) -> int:
    """Give a port on which nobody listens now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
