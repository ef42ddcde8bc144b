"""QEMU's machine protocol (QMP): JSON lines over a unix socket, as much as making a template needs.

QEMU connects to us when it starts, so that nobody has to look for its socket again and again.
"""

from __future__ import annotations

import json
import socket
import time
from typing import IO, TYPE_CHECKING, Any, Final, Self

from seatrial.errors import DriverError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

LINE_BYTES_MAX: Final = 1 << 20
#: QEMU says how far a migration is when it is asked; asking is cheap and not in a timed path.
MIGRATION_EVENT: Final = "MIGRATION"


class Listener:
    """A unix socket on which a started machine will call."""

    def __init__(self, path: Path) -> None:
        """Listen at a path."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(str(path))
            self._socket.listen(1)
        except BaseException:
            self._socket.close()
            raise

    def accept(self, deadline_ns: int) -> socket.socket:
        """Give the connection.

        Raises:
            DriverError: none came before the deadline.
        """
        self._socket.settimeout(remaining_s(deadline_ns, "to connect"))
        try:
            connection, _ = self._socket.accept()
        except TimeoutError as error:
            raise _too_late("to connect") from error
        return connection

    def __enter__(self) -> Self:
        """Give the listener."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it and remove its path."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


class Qmp:
    """A conversation with one machine, all of it before one deadline."""

    def __init__(self, connection: socket.socket, deadline_ns: int) -> None:
        """Take over a connection and greet."""
        self._socket = connection
        self._deadline_ns = deadline_ns
        self._held = b""
        self._line()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Give what a command returns.

        Raises:
            DriverError: the machine refused it, or did not answer in time.
        """
        self._socket.sendall(command_line(command, arguments))
        return self._answer(command)

    def lend_file(self, name: str, file: IO[bytes]) -> None:
        """Give the machine an open file under a name, for ``fd:NAME``."""
        line = command_line("getfd", {"fdname": name})
        socket.send_fds(self._socket, [line], [file.fileno()])
        self._answer("getfd")

    def _answer(self, command: str) -> Any:
        while True:
            answer = self._line()
            if "error" in answer:
                raise DriverError(f"QEMU refused {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def wait_migrated(self) -> None:
        """Wait until a migration has ended well; its events must have been asked for.

        Raises:
            DriverError: it failed, or took too long.
        """
        while True:
            message = self._line()
            if message.get("event") != MIGRATION_EVENT:
                continue
            status = message["data"]["status"]
            if status == "completed":
                return
            if status in {"failed", "cancelled"}:
                raise DriverError(f"QEMU could not write the template's state: {status}")

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._held:
            self._socket.settimeout(remaining_s(self._deadline_ns, "to answer"))
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError as error:
                raise _too_late("to answer") from error
            if not chunk or len(self._held) > LINE_BYTES_MAX:
                raise DriverError("QEMU hung up while its template was being made")
            self._held += chunk
        line, _, self._held = self._held.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


def command_line(command: str, arguments: Mapping[str, object]) -> bytes:
    """Give a command as it is sent; pure."""
    message: dict[str, object] = {"execute": command}
    if arguments:
        message["arguments"] = arguments
    return json.dumps(message).encode() + b"\n"


def remaining_s(deadline_ns: int, what: str) -> float:
    """Give the time until a deadline.

    Raises:
        DriverError: it has passed.
    """
    left_ns = deadline_ns - time.monotonic_ns()
    if left_ns <= 0:
        raise _too_late(what)
    return left_ns / 1e9


def _too_late(what: str) -> DriverError:
    return DriverError(
        f"a machine that was to become a template took too long {what}",
        hint="the machine is very busy, or no guest boots; see 'seatrial doctor'",
    )
