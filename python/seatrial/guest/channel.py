"""The host's end of the control channel: ``seatrial_core::control``, in Python.

One call at a time: each sends one frame and waits, within a bound of time, for the one frame that
answers it. Nothing a guest sends can make a call hang, grow without bound, or raise anything other
than ``ProtocolMismatch`` (it does not speak the protocol) or ``DriverError`` (it is gone, too slow,
or says that it could not do what was asked). After either, other than a refusal, the channel is
of no further use, because its answers can no longer be told apart.
"""

from __future__ import annotations

import json
import re
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NoReturn, Self

from seatrial.errors import DriverError, ProtocolMismatch
from seatrial.guest.stats import ServerStats

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

#: The version of the protocol; it has to be the guest's.
VERSION: Final = 2
#: Largest value of the length field: version, type and payload.
FRAME_BYTES_MAX: Final = 1 << 20
#: Longest payload of a ping.
PING_BYTES_MAX: Final = 64 << 10
#: Longest build text in a HELLO.
BUILD_BYTES_MAX: Final = 64
#: Most frames that may precede the answer: HELLO and READY that nobody took.
SKIPPED_FRAMES_MAX: Final = 2
#: Most bytes that are thrown away while waiting for a guest to stop.
DISCARDED_BYTES_MAX: Final = 16 << 20

PING_TIMEOUT_NS: Final = 10_000_000_000
RUN_TIMEOUT_NS: Final = 600_000_000_000
STATS_TIMEOUT_NS: Final = 10_000_000_000
STOP_TIMEOUT_NS: Final = 10_000_000_000

_LENGTH: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<BB")
_HELLO: Final = struct.Struct("<QQI")
_READY: Final = struct.Struct("<Q")
_CODE: Final = re.compile(r"[a-z][a-z-]{0,31}")
_RECEIVE_BYTES: Final = 64 << 10


class FrameType(IntEnum):
    """The type byte of a frame; guests send those below 0x10."""

    HELLO = 0x01
    READY = 0x02
    PONG = 0x03
    RESULT = 0x04
    ERROR = 0x05
    STATS = 0x06
    PING = 0x11
    RUN = 0x12
    STOP = 0x13
    GIVE_STATS = 0x14


#: Payload lengths that each frame of a guest may have.
_PAYLOAD_BYTES: Final = {
    FrameType.HELLO: (_HELLO.size, _HELLO.size + BUILD_BYTES_MAX),
    FrameType.READY: (_READY.size, FRAME_BYTES_MAX - _HEAD.size),
    FrameType.PONG: (0, PING_BYTES_MAX),
    FrameType.RESULT: (0, FRAME_BYTES_MAX - _HEAD.size),
    FrameType.ERROR: (0, FRAME_BYTES_MAX - _HEAD.size),
    FrameType.STATS: (0, FRAME_BYTES_MAX - _HEAD.size),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a guest says first; instants are its own monotonic clock's."""

    first_instruction_mono_ns: int
    hello_mono_ns: int
    pid: int
    build: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a guest says when its role is set up; endpoints such as ``tcp:0.0.0.0:7000``."""

    ready_mono_ns: int
    endpoints: tuple[str, ...]


class GuestChannel:
    """Talks to one guest over a connected stream socket, which it owns."""

    def __init__(self, sock: socket.socket, *, name: str = "guest") -> None:
        """Take the socket; ``name`` is the sandbox's, for messages."""
        self._socket = sock
        self._name = name
        self._buffer = bytearray()
        self._trouble: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up, upon which the guest exits; may be called again."""
        self._trouble = self._trouble or "the channel was closed"
        self._socket.close()

    def hello(self, *, timeout_ns: int = PING_TIMEOUT_NS) -> Hello:
        """Takes the guest's HELLO, where nobody took it before.

        Raises:
            ProtocolMismatch: something else came.
            DriverError: the guest reported an error, is gone, or was too slow.
        """
        payload = self._expect(FrameType.HELLO, "its HELLO", self._deadline(timeout_ns))
        first_ns, hello_ns, pid = _HELLO.unpack_from(payload)
        try:
            build = payload[_HELLO.size :].decode()
        except UnicodeDecodeError as error:
            self._mismatch(f"HELLO with a build text that is not UTF-8: {error}")
        return Hello(
            first_instruction_mono_ns=first_ns, hello_mono_ns=hello_ns, pid=pid, build=build
        )

    def ready(self, *, timeout_ns: int = PING_TIMEOUT_NS) -> Ready:
        """Takes the guest's READY, where nobody took it before.

        Raises:
            ProtocolMismatch: something else came.
            DriverError: the guest reported an error, is gone, or was too slow.
        """
        payload = self._expect(FrameType.READY, "its READY", self._deadline(timeout_ns))
        (ready_ns,) = _READY.unpack_from(payload)
        rest = payload[_READY.size :]
        endpoints = self._json("READY", rest).get("endpoints") if rest else []
        if not isinstance(endpoints, list) or not all(isinstance(item, str) for item in endpoints):
            self._mismatch("READY whose endpoints are not a list of texts")
        return Ready(ready_mono_ns=ready_ns, endpoints=tuple(endpoints))

    def ping(self, payload: bytes = b"", *, timeout_ns: int = PING_TIMEOUT_NS) -> None:
        """Has the guest send ``payload`` (at most 64 KiB) back.

        Raises:
            ValueError: the payload is too long.
            ProtocolMismatch: something else came back.
            DriverError: the guest is gone or too slow.
        """
        if len(payload) > PING_BYTES_MAX:
            raise ValueError(f"ping payload of {len(payload)} bytes, at most {PING_BYTES_MAX}")
        deadline_ns = self._deadline(timeout_ns)
        self._send(FrameType.PING, payload, deadline_ns)
        answer = self._expect(FrameType.PONG, "the answer to a ping", deadline_ns, skip=True)
        if answer != payload:
            self._mismatch(f"PONG with other bytes ({len(answer)}) than the PING ({len(payload)})")

    def run(
        self, request: Mapping[str, object], *, timeout_ns: int = RUN_TIMEOUT_NS
    ) -> dict[str, object]:
        """Has the guest run a probe and gives its result.

        Raises:
            ValueError: the request is no JSON or too long.
            ProtocolMismatch: something else than a result came back.
            DriverError: the guest refused or failed (code ``guest-...``; the channel stays usable),
                is gone, or was too slow.
        """
        text = json.dumps(request, allow_nan=False).encode()
        if len(text) > FRAME_BYTES_MAX - _HEAD.size:
            raise ValueError(f"request of {len(text)} bytes, at most {FRAME_BYTES_MAX} with head")
        deadline_ns = self._deadline(timeout_ns)
        self._send(FrameType.RUN, text, deadline_ns)
        what = f"the result of probe {request.get('probe')!r}"
        return self._json("RESULT", self._expect(FrameType.RESULT, what, deadline_ns, skip=True))

    def stats(self, *, timeout_ns: int = STATS_TIMEOUT_NS) -> ServerStats:
        """Asks a guest that serves what it has counted since it began.

        Raises:
            ProtocolMismatch: something else than counts came back.
            DriverError: the guest serves nothing (code ``guest-no-server``), is gone, or was too
                slow.
        """
        deadline_ns = self._deadline(timeout_ns)
        self._send(FrameType.GIVE_STATS, b"", deadline_ns)
        what = "what it has counted"
        record = self._json("STATS", self._expect(FrameType.STATS, what, deadline_ns, skip=True))
        try:
            return ServerStats.from_json(record)
        except ValueError as error:
            self._mismatch(f"STATS that are none: {error}")

    def stop(self, *, timeout_ns: int = STOP_TIMEOUT_NS) -> None:
        """Asks the guest to exit, waits until it has hung up, and closes; gone before is fine.

        Raises:
            DriverError: the guest did not hang up in time.
        """
        deadline_ns = self._deadline(timeout_ns)
        try:
            self._write(_frame(FrameType.STOP, b""), deadline_ns)
            discarded_bytes = 0
            while chunk := self._receive(deadline_ns):
                discarded_bytes += len(chunk)
                if discarded_bytes > DISCARDED_BYTES_MAX:
                    raise DriverError(f"{self._name} keeps sending instead of stopping")
        except TimeoutError as error:
            raise DriverError(
                f"{self._name} did not stop within {timeout_ns} ns of being asked",
                hint="it can be killed instead",
            ) from error
        except OSError:
            pass  # it is gone, which is what was asked for
        finally:
            self.close()

    def _deadline(self, timeout_ns: int) -> int:
        if self._trouble is not None:
            raise DriverError(f"{self._name}: the control channel is not usable: {self._trouble}")
        return time.monotonic_ns() + timeout_ns

    def _mismatch(self, what: str) -> NoReturn:
        self._trouble = f"the guest sent {what}"
        raise ProtocolMismatch(
            f"{self._name} does not speak control protocol {VERSION}: it sent {what}",
            hint="the guest binary must be of this release: run 'make build'",
        )

    def _lost(self, what: str, cause: Exception | None = None) -> NoReturn:
        self._trouble = what
        raise DriverError(f"{self._name}: {what}") from cause

    def _send(self, kind: FrameType, payload: bytes, deadline_ns: int) -> None:
        try:
            self._write(_frame(kind, payload), deadline_ns)
        except TimeoutError as error:
            self._lost(f"it did not take a {kind.name} in time", error)
        except OSError as error:
            self._last_words(kind, deadline_ns, error)

    def _last_words(self, kind: FrameType, deadline_ns: int, cause: OSError) -> NoReturn:
        """The guest hung up; an ERROR that it sent before says more than that."""
        what = f"anything more after {kind.name} failed"
        self._expect(FrameType.ERROR, what, deadline_ns, skip=True)
        self._lost(f"it hung up before a {kind.name}", cause)

    def _write(self, data: bytes, deadline_ns: int) -> None:
        self._arm(deadline_ns)
        self._socket.sendall(data)

    def _arm(self, deadline_ns: int) -> None:
        left_ns = deadline_ns - time.monotonic_ns()
        if left_ns <= 0:
            raise TimeoutError
        self._socket.settimeout(left_ns / 1e9)

    def _receive(self, deadline_ns: int) -> bytes:
        self._arm(deadline_ns)
        return self._socket.recv(_RECEIVE_BYTES)

    def _expect(
        self, wanted: FrameType, what: str, deadline_ns: int, *, skip: bool = False
    ) -> bytes:
        """Takes frames until the wanted one; ``skip`` lets HELLO and READY pass."""
        kind, payload = self._frame(what, deadline_ns)
        for _ in range(SKIPPED_FRAMES_MAX):
            if not skip or kind not in {FrameType.HELLO, FrameType.READY}:
                break
            kind, payload = self._frame(what, deadline_ns)
        if kind is FrameType.ERROR:
            self._refused(what, payload)
        if kind is not wanted:
            self._mismatch(f"{kind.name} instead of {wanted.name}")
        return payload

    def _refused(self, what: str, payload: bytes) -> NoReturn:
        report = self._json("ERROR", payload)
        code, message = report.get("code"), report.get("message")
        if not isinstance(code, str) or not isinstance(message, str) or not _CODE.fullmatch(code):
            self._mismatch("ERROR without a code and a message")
        if code == "protocol":
            self._trouble = message
            raise ProtocolMismatch(
                f"{self._name} refused what this program sent: {message}",
                hint="the guest binary must be of this release: run 'make build'",
            )
        raise DriverError(f"{self._name} failed at {what}: {message}", code=f"guest-{code}")

    def _frame(self, what: str, deadline_ns: int) -> tuple[FrameType, bytes]:
        """The next whole frame; refuses a bad one at the first byte that shows it."""
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size, what, deadline_ns))
        if not _HEAD.size <= length <= FRAME_BYTES_MAX:
            self._mismatch(f"a frame length of {length}")
        version, number = _HEAD.unpack(self._take(_HEAD.size, what, deadline_ns))
        if version != VERSION:
            self._mismatch(f"protocol version {version}")
        payload_bytes = length - _HEAD.size
        try:
            kind = FrameType(number)
            low, high = _PAYLOAD_BYTES[kind]
        except (ValueError, KeyError):
            self._mismatch(f"frame type {number:#04x}")
        if not low <= payload_bytes <= high:
            self._mismatch(f"{kind.name} with {payload_bytes} payload bytes, not {low} to {high}")
        return kind, self._take(payload_bytes, what, deadline_ns)

    def _take(self, count: int, what: str, deadline_ns: int) -> bytes:
        while len(self._buffer) < count:
            try:
                chunk = self._receive(deadline_ns)
            except TimeoutError as error:
                self._lost(f"no answer in time: {what} did not come", error)
            except OSError as error:
                self._lost(f"it hung up before {what} came: {error}", error)
            if not chunk:
                self._lost(f"it hung up before {what} came")
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _json(self, name: str, payload: bytes) -> dict[str, object]:
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError) as error:
            self._mismatch(f"{name} whose payload is no JSON: {error}")
        if not isinstance(value, dict):
            self._mismatch(f"{name} whose JSON is no object but {type(value).__name__}")
        return value


def _frame(kind: FrameType, payload: bytes) -> bytes:
    length = _LENGTH.pack(_HEAD.size + len(payload))
    return length + _HEAD.pack(VERSION, kind) + payload
