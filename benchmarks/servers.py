"""The guest's own server as a plain process on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from seatrial import proc
from seatrial.errors import EnvironmentTrouble
from seatrial.guest.binary import guest_binary

if TYPE_CHECKING:
    from types import TracebackType


class Server:
    """Runs while the context lasts; the guest prints the port it got."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self.host = "127.0.0.1"
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"tcp://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        """Starts it and reads its address."""
        self._child = proc.spawn(
            [
                str(guest_binary()),
                "--channel-fd",
                "none",
                "serve",
                "--protocol",
                self._protocol,
                "--listen",
                f"tcp:{self.host}:0",
            ],
            stdout="pipe",
        )
        stream = self._child.stdout
        line = b"" if stream is None else stream.readline()
        if not line:
            self._child.close()
            raise EnvironmentTrouble("the guest's server ended before it printed its address")
        self.port = int(line.decode().strip().rpartition(":")[2])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it."""
        self._child.close()
