"""The client of ``seatrial-launch``: one small process which starts and holds sandboxes for us.

One request is under way at a time and each gets one reply. When a request is interrupted its reply
is lost to us, so the launcher is of no more use: all that is left is ``close``, which kills it and
everything that it started.
"""

import contextlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from seatrial import proc
from seatrial.errors import DriverError, EnvironmentTrouble, ProtocolMismatch, SeatrialError
from seatrial.guest.binary import launch_binary
from seatrial.launch.plan import (
    StartBatch,
    StartPlan,
    StartResult,
    StopHow,
    StopResult,
    WaitFor,
)

# How long a guest may take to obey STOP before it is killed.
STOP_GRACE_NS: Final = 5_000_000_000
# What the launcher allows itself beyond a request's own bounds: 10 s until a killed process has
# vanished, 10 s for its clean-up command, and as much again for a machine in trouble.
REPLY_MARGIN_NS: Final = 40_000_000_000
# How long the launcher may take for a request which starts nothing.
SHORT_REPLY_NS: Final = 10_000_000_000
# How long the launcher may take to kill everything when we close its socket.
CLOSE_TIMEOUT_S: Final = 15.0
FRAME_BYTES_MAX: Final = 64 << 20
ID_BYTES_MAX: Final = 255
STDERR_BYTES_MAX: Final = 4096
_LENGTH: Final = struct.Struct("<I")


class Launcher:
    """A running launcher; leaving the ``with`` block kills it and everything that it started."""

    def __init__(
        self,
        *,
        unmount: Sequence[str] = (),
        binary: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start the launcher, in a mount namespace of its own without ``unmount`` if that is given.

        ``directory`` is where it and what it starts work; the caller's own unless given.

        Raises:
            EnvironmentTrouble: the binary is missing, or the mounts cannot be removed.
        """
        self._reason: str | None = None
        with contextlib.ExitStack() as stack:
            self._control, control = _pair(stack, socket.SOCK_STREAM)
            self._descriptors, descriptors = _pair(stack, socket.SOCK_SEQPACKET)
            numbers = (control.fileno(), descriptors.fileno())
            self._process = proc.spawn(
                [
                    str(launch_binary() if binary is None else binary),
                    "--control-fd",
                    str(numbers[0]),
                    "--descriptor-fd",
                    str(numbers[1]),
                ],
                pass_fds=numbers,
                cwd=directory,
                stderr="pipe",
            )
            stack.callback(self._process.close)
            control.close()
            descriptors.close()
            if unmount:
                self._request({"op": "context", "unmount": list(unmount)}, SHORT_REPLY_NS)
            self._stack = stack.pop_all()

    @property
    def pid(self) -> int:
        """The launcher's process."""
        return self._process.pid

    def start(
        self,
        plans: Sequence[StartPlan],
        *,
        wait_for: WaitFor,
        hold: bool,
        timeout_ns: int,
        stop_grace_ns: int = STOP_GRACE_NS,
    ) -> StartBatch:
        """Release all plans by one barrier and wait until each has reached its goal or failed.

        With ``hold`` those that have reached it stay until ``stop``; without, they are stopped.
        What goes wrong with a single sandbox is in its result.

        Raises:
            DriverError: the launcher refused the batch as a whole, or died.
        """
        reply = self._request(
            {
                "op": "start",
                "plans": [plan.to_json() for plan in plans],
                "wait_for": wait_for,
                "hold": hold,
                "timeout_ns": timeout_ns,
                "stop_grace_ns": stop_grace_ns,
            },
            timeout_ns + stop_grace_ns + REPLY_MARGIN_NS,
        )
        used = cast("Mapping[str, int]", reply["launcher"])
        return StartBatch(
            released_at_ns=cast("int", reply["released_at_ns"]),
            results=tuple(StartResult.from_json(record) for record in _records(reply)),
            launcher_user_ns=used["user_ns"],
            launcher_system_ns=used["system_ns"],
        )

    def listen(self, address: str) -> int:
        """Listen for guests that call by TCP at an address of this host; give the port.

        The address may be one that comes later, such as the host's end of a pod's network. It stays
        open as long as the launcher lives, and has one port however often it is asked for. Whoever
        does not say the token of a plan that is being started is sent away.

        Raises:
            DriverError: the system refused (``launcher-listen``).
        """
        reply = self._request({"op": "listen", "address": address}, SHORT_REPLY_NS)
        return cast("int", reply["port"])

    def channel(self, sandbox_id: str, /) -> socket.socket:
        """Give the control channel of a held sandbox; the launcher reads it no more.

        It stands between two frames. The launcher can still ask the guest to stop.

        Raises:
            DriverError: no such sandbox is held, or it has no channel.
        """
        self._request({"op": "channel", "id": sandbox_id}, SHORT_REPLY_NS)
        # The descriptor was sent before the reply.
        name, numbers, _, _ = socket.recv_fds(
            self._descriptors, ID_BYTES_MAX, 1, socket.MSG_DONTWAIT
        )
        if len(numbers) != 1 or name.decode("utf-8", errors="replace") != sandbox_id:
            for number in numbers:
                os.close(number)
            message = f"the launcher handed over {name!r} when asked for {sandbox_id!r}"
            raise ProtocolMismatch(message)
        return socket.socket(fileno=numbers[0])

    def stop(
        self,
        ids: Sequence[str] | None = None,
        *,
        how: StopHow = "request",
        grace_ns: int = STOP_GRACE_NS,
    ) -> tuple[StopResult, ...]:
        """Stop held sandboxes (None: all), wait for their ends, and forget them.

        ``request`` asks the guest and kills it after ``grace_ns``; ``kill`` kills at once. The
        ``kill_argv`` of a plan that was killed is run in either case.

        Raises:
            DriverError: one of the ids is not held; then nothing was stopped.
        """
        reply = self._request(
            {
                "op": "stop",
                "ids": None if ids is None else list(ids),
                "how": how,
                "grace_ns": grace_ns,
            },
            grace_ns + REPLY_MARGIN_NS,
        )
        return tuple(StopResult.from_json(record) for record in _records(reply))

    def close(self) -> None:
        """Kill everything that was started, and the launcher; harmless when done before."""
        self._reason = self._reason or "it was closed"
        self._control.close()
        self._descriptors.close()
        if self._process.poll() is None:
            _wait_for_end(self._process.pid, CLOSE_TIMEOUT_S)
        self._stack.close()

    def __enter__(self) -> Self:
        """Give the launcher itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it whatever happened."""
        self.close()

    def _request(self, request: Mapping[str, object], timeout_ns: int) -> Mapping[str, object]:
        """Send a request and wait for its reply."""
        if self._reason is not None:
            message = f"the launcher cannot be asked for {request['op']!r}: {self._reason}"
            raise DriverError(message, code="launcher-gone")
        self._reason = "an earlier request was interrupted"
        try:
            data = self._exchange(json.dumps(request).encode(), timeout_ns)
        except (OSError, EOFError) as error:
            self._reason = "it has ended"
            raise self._lost(str(request["op"]), error) from error
        self._reason = None
        reply = cast("Mapping[str, object]", json.loads(data))
        if reply.get("ok") is not True:
            raise _refusal(str(request["op"]), reply)
        return reply

    def _exchange(self, request: bytes, timeout_ns: int) -> bytes:
        deadline_ns = time.monotonic_ns() + timeout_ns
        self._control.settimeout(timeout_ns / 1e9)
        self._control.sendall(_LENGTH.pack(len(request)) + request)
        (length,) = _LENGTH.unpack(self._receive(_LENGTH.size, deadline_ns))
        if length > FRAME_BYTES_MAX:
            message = f"a reply of {length} bytes from the launcher, expected <= {FRAME_BYTES_MAX}"
            raise ProtocolMismatch(message)
        return self._receive(length, deadline_ns)

    def _receive(self, length: int, deadline_ns: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            self._control.settimeout(max(deadline_ns - time.monotonic_ns(), 1) / 1e9)
            count = self._control.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return bytes(data)

    def _lost(self, operation: str, error: Exception) -> SeatrialError:
        if isinstance(error, TimeoutError):
            return DriverError(
                f"the launcher (pid {self.pid}) did not answer {operation!r} in time",
                hint="the machine is overloaded or a process hangs in the kernel: see 'dmesg'",
                code="launcher-silent",
            )
        exit_code = self._process.wait(timeout_s=1.0)
        said = _last_words(self._process)
        return DriverError(
            f"the launcher (pid {self.pid}) ended with {exit_code} during {operation!r}"
            + (f": {said}" if said else ""),
            code="launcher-gone",
        )


def _pair(
    stack: contextlib.ExitStack, kind: socket.SocketKind
) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return ours, theirs


def _records(reply: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    return cast("Sequence[Mapping[str, object]]", reply["results"])


def _refusal(operation: str, reply: Mapping[str, object]) -> SeatrialError:
    code, message = str(reply.get("code")), str(reply.get("message"))
    text = f"the launcher refused {operation!r}: {message}"
    if code in {"context", "environment"}:
        return EnvironmentTrouble(text, code=f"launcher-{code}")
    return DriverError(text, code=f"launcher-{code}")


def _wait_for_end(pid: int, timeout_s: float) -> None:
    """Wait until a child of ours has ended, without reaping it."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [], timeout_s)
        finally:
            os.close(descriptor)


def _last_words(process: proc.Spawned) -> str:
    if process.stderr is None:
        return ""
    os.set_blocking(process.stderr.fileno(), False)
    return (process.stderr.read(STDERR_BYTES_MAX) or b"").decode(errors="replace").strip()
