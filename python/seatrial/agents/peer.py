"""One end of a connection between coordinator and agent: handshake, sending, receiving.

The handshake: the coordinator sends a nonce; the agent answers with a nonce of its own and the
HMAC of both under the token; the coordinator answers with the HMAC of both in the other order.
Neither end says anything else before it has seen the other's proof. The token itself never travels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import secrets
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.agents.frames import Decoder, Frame, FrameError, Kind, Sealer, encode
from seatrial.errors import TrialFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The variable of an agent's environment that holds the token, in hexadecimal digits.
AGENT_VARIABLE: Final = "SEATRIAL_AGENT_TOKEN"
NONCE_BYTES: Final = 32
TOKEN_BYTES_MIN: Final = 16
HANDSHAKE_TIMEOUT_NS: Final = 5_000_000_000
#: Longest time in which the other end takes nothing of what is sent to it.
SEND_TIMEOUT_NS: Final = 10_000_000_000
READ_BYTES: Final = 1 << 18


class PeerLost(TrialFailed):
    """The other end closed the connection, or is silent."""

    default_code = "agent-lost"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who an agent is, in its own words."""

    name: str
    host: str
    pid: int
    # Two processes share a monotonic clock only if they share the boot.
    boot_id: str


class Peer:
    """An open connection; not safe for use by several threads at once, sending apart."""

    def __init__(self, stream: socket.socket) -> None:
        """Takes the connected socket over."""
        stream.settimeout(0)
        self._stream = stream
        self._decoder = Decoder()
        self._sealer = Sealer(None)

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._stream.fileno()

    def close(self) -> None:
        """Closes the connection."""
        self._stream.close()

    def start_session(self, key: bytes, *, sends: str, receives: str) -> None:
        """From now on frames carry tags, under a key a direction."""
        self._sealer = Sealer(_derived(key, sends))
        self._decoder.expect_tags_of(Sealer(_derived(key, receives)))

    def send(self, kind: Kind, fields: Mapping[str, object], data: bytes = b"") -> None:
        """Sends a frame whole.

        Raises:
            PeerLost: the other end is gone, or takes nothing.
        """
        rest = memoryview(encode(Frame(kind, fields, data), self._sealer))
        while rest:
            try:
                rest = rest[self._stream.send(rest) :]
            except BlockingIOError:
                if not select.select([], [self._stream], [], SEND_TIMEOUT_NS / 1e9)[1]:
                    message = "it takes nothing of what is sent to it"
                    raise PeerLost(message) from None
            except OSError as error:
                raise PeerLost(f"the connection broke: {error.strerror}") from error

    def receive(self, *, timeout_ns: int) -> Frame | None:
        """Returns the next frame, or None when none comes in time.

        Raises:
            PeerLost: the other end has closed.
            FrameError: what came is no frame.
        """
        deadline_ns = time.monotonic_ns() + timeout_ns
        while (frame := self._decoder.next_frame()) is None:
            left_ns = max(0, deadline_ns - time.monotonic_ns())
            if not select.select([self._stream], [], [], left_ns / 1e9)[0]:
                return None
            self._read()
        return frame

    def _read(self) -> None:
        try:
            data = self._stream.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise PeerLost(f"the connection broke: {error.strerror}") from error
        if not data:
            raise PeerLost("it closed the connection")
        self._decoder.add(data)


def own_identity(name: str) -> Identity:
    """Returns who this process is."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Identity(name=name, host=socket.gethostname(), pid=os.getpid(), boot_id=boot_id)


def accept_agent(peer: Peer, token: bytes) -> Identity:
    """Does the coordinator's part of the handshake, and returns who the agent is.

    Raises:
        FrameError: the agent speaks another protocol or does not know the token.
        PeerLost: it went away or is silent.
    """
    own = secrets.token_bytes(NONCE_BYTES)
    peer.send(Kind.CHALLENGE, {"nonce": own.hex()})
    hello = _expect(peer, Kind.HELLO)
    other = _nonce(hello)
    _check(hello, _proof(token, b"agent", own, other))
    identity = _identity(hello)
    peer.send(Kind.WELCOME, {"proof": _proof(token, b"coordinator", other, own)})
    peer.start_session(_session_key(token, own, other), sends="coordinator", receives="agent")
    return identity


def join_coordinator(peer: Peer, token: bytes, identity: Identity) -> None:
    """Does the agent's part of the handshake.

    Raises:
        FrameError: the coordinator speaks another protocol or does not know the token.
        PeerLost: it went away or is silent.
    """
    challenge = _expect(peer, Kind.CHALLENGE)
    other, own = _nonce(challenge), secrets.token_bytes(NONCE_BYTES)
    proof = _proof(token, b"agent", other, own)
    peer.send(Kind.HELLO, {**dataclasses.asdict(identity), "nonce": own.hex(), "proof": proof})
    _check(_expect(peer, Kind.WELCOME), _proof(token, b"coordinator", own, other))
    peer.start_session(_session_key(token, other, own), sends="agent", receives="coordinator")


def _expect(peer: Peer, kind: Kind) -> Frame:
    frame = peer.receive(timeout_ns=HANDSHAKE_TIMEOUT_NS)
    if frame is None:
        raise PeerLost(f"it said nothing for {HANDSHAKE_TIMEOUT_NS // 10**9} s")
    if frame.kind is not kind:
        raise FrameError(f"a handshake sends {kind.name} here; got {frame.kind.name}")
    return frame


def _nonce(frame: Frame) -> bytes:
    try:
        nonce = bytes.fromhex(str(frame.fields.get("nonce")))
    except ValueError:
        nonce = b""
    if len(nonce) != NONCE_BYTES:
        raise FrameError(f"{frame.kind.name} carries no nonce of {NONCE_BYTES} bytes")
    return nonce


def _check(frame: Frame, proof: str) -> None:
    if not hmac.compare_digest(str(frame.fields.get("proof")).encode(), proof.encode()):
        message = "the other end does not know the token"
        raise FrameError(message, hint="start agents with the coordinator's token")


def _identity(hello: Frame) -> Identity:
    fields = hello.fields
    name, host, pid, boot_id = (fields.get(key) for key in ("name", "host", "pid", "boot_id"))
    is_right = isinstance(pid, int) and all(isinstance(text, str) for text in (name, host, boot_id))
    if not is_right:
        raise FrameError("HELLO does not say who the agent is")
    return Identity(name=str(name), host=str(host), pid=int(str(pid)), boot_id=str(boot_id))


def _proof(token: bytes, role: bytes, first: bytes, second: bytes) -> str:
    return hmac.new(token, role + b"\0" + first + second, hashlib.sha256).hexdigest()


def _session_key(token: bytes, coordinator: bytes, agent: bytes) -> bytes:
    return hmac.new(token, b"session\0" + coordinator + agent, hashlib.sha256).digest()


def _derived(key: bytes, direction: str) -> bytes:
    return hmac.new(key, direction.encode(), hashlib.sha256).digest()
