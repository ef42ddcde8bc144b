"""Frames between coordinator and agents: bytes to messages and back, without input or output.

::

    offset  size  field
         0     4  magic "SEAG"
         4     1  version of the protocol
         5     1  kind of message
         6     2  zero
         8     4  length of the body (little endian)
        12     n  body: u32 length of a JSON object, the object, then bytes that belong to it
      12+n    16  tag: the first 16 bytes of HMAC-SHA256 over sequence number, header and body

Each direction counts its frames from 0 and has a key of its own, so that a frame can be neither
altered, repeated, left out nor turned back. The three frames of the handshake carry zeros as tag.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import hmac
import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from seatrial.errors import TrialFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = b"SEAG"
VERSION: Final = 1
#: Longer things, such as records, travel in several frames.
BODY_BYTES_MAX: Final = 32 << 20
TAG_BYTES: Final = 16
_HEADER: Final = struct.Struct("<4sBBHI")
_JSON_LENGTH: Final = struct.Struct("<I")
_SEQUENCE: Final = struct.Struct("<Q")


class Kind(enum.IntEnum):
    """What a frame is about; the direction in brackets."""

    CHALLENGE = 1  # (to the agent) a nonce
    HELLO = 2  # (to the coordinator) who it is, a nonce, and the proof that it knows the token
    WELCOME = 3  # (to the agent) the coordinator's proof
    RUN = 4  # (to the agent) a load, and when it starts
    ALIVE = 5  # (both) nothing but a sign of life
    SNAPSHOT = 6  # (to the coordinator) how the load goes
    FINISH = 7  # (to the agent) stop offering, drain, and report
    PART = 8  # (to the coordinator) a piece of the report
    REPORT = 9  # (to the coordinator) the load is over; the last piece
    FAILED = 10  # (to the coordinator) the load could not be offered
    BYE = 11  # (to the agent) there is nothing more to do


class FrameError(TrialFailed):
    """The other end does not speak our protocol, or is not who it should be."""

    default_code = "agent-protocol"


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One message: a JSON object, and bytes that belong to it."""

    kind: Kind
    fields: Mapping[str, object]
    data: bytes = b""


class Sealer:
    """Tags the frames of one direction; the key is None as long as there is no session."""

    def __init__(self, key: bytes | None) -> None:
        """Starts at frame 0."""
        self._key = key
        self._sequence = 0

    def tag(self, frame: bytes) -> bytes:
        """Returns the tag of the next frame of this direction."""
        if self._key is None:
            return bytes(TAG_BYTES)
        text = _SEQUENCE.pack(self._sequence) + frame
        self._sequence += 1
        return hmac.new(self._key, text, hashlib.sha256).digest()[:TAG_BYTES]


def encode(frame: Frame, sealer: Sealer) -> bytes:
    """Returns the bytes of a frame.

    Raises:
        ValueError: the body is longer than `BODY_BYTES_MAX`.
    """
    text = json.dumps(frame.fields, separators=(",", ":"), allow_nan=False).encode()
    body = _JSON_LENGTH.pack(len(text)) + text + frame.data
    if len(body) > BODY_BYTES_MAX:
        message = f"a frame's body has {len(body)} bytes; expected at most {BODY_BYTES_MAX}"
        raise ValueError(message)
    whole = _HEADER.pack(MAGIC, VERSION, frame.kind, 0, len(body)) + body
    return whole + sealer.tag(whole)


class Decoder:
    """Takes bytes as they come, and gives whole frames; holds one frame at most."""

    def __init__(self) -> None:
        """Starts before the handshake, where frames have no tag."""
        self._bytes = bytearray()
        self._sealer = Sealer(None)

    def expect_tags_of(self, sealer: Sealer) -> None:
        """From now on every frame has to carry this direction's tag."""
        self._sealer = sealer

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Adds bytes, and yields the frames that are whole now.

        Raises:
            FrameError: the bytes are no frame of this version, or the tag is wrong.
        """
        self.add(data)
        while (frame := self.next_frame()) is not None:
            yield frame

    def add(self, data: bytes) -> None:
        """Adds bytes as they came."""
        self._bytes += data

    def next_frame(self) -> Frame | None:
        """Takes the next whole frame; None if there is none.

        One at a time, because the frames after a handshake carry tags and may come with it.

        Raises:
            FrameError: the bytes are no frame of this version, or the tag is wrong.
        """
        if len(self._bytes) < _HEADER.size:
            # What is wrong from the first byte on is not waited for.
            if not MAGIC.startswith(bytes(self._bytes[: len(MAGIC)])):
                raise _broken(f"it begins with {bytes(self._bytes[:4])!r}", repr(MAGIC))
            return None
        magic, version, kind, zero, length = _HEADER.unpack_from(self._bytes)
        if magic != MAGIC:
            raise _broken(f"it begins with {magic!r}", repr(MAGIC))
        if version != VERSION:
            raise _broken(f"it has version {version}", f"version {VERSION}")
        if zero != 0 or kind not in set(Kind):
            raise _broken(f"it is of kind {kind}, reserved {zero}", "a known kind and zero")
        if length > BODY_BYTES_MAX or length < _JSON_LENGTH.size:
            raise _broken(f"its body has {length} bytes", f"4 to {BODY_BYTES_MAX}")
        end = _HEADER.size + length
        if len(self._bytes) < end + TAG_BYTES:
            return None
        whole = bytes(self._bytes[:end])
        tag = bytes(self._bytes[end : end + TAG_BYTES])
        del self._bytes[: end + TAG_BYTES]
        if not hmac.compare_digest(tag, self._sealer.tag(whole)):
            raise _broken("its tag is wrong", "the tag of this session's key and sequence")
        return _opened(Kind(kind), whole[_HEADER.size :])


def _opened(kind: Kind, body: bytes) -> Frame:
    (length,) = _JSON_LENGTH.unpack_from(body)
    text = body[_JSON_LENGTH.size : _JSON_LENGTH.size + length]
    if len(text) < length:
        raise _broken(f"its JSON has {length} bytes", f"at most {len(text)}")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken("its body is no JSON", "a JSON object") from error
    if not isinstance(fields, dict):
        raise _broken(f"its body is a {type(fields).__name__}", "a JSON object")
    return Frame(kind, fields, body[_JSON_LENGTH.size + length :])


def _broken(got: str, expected: str) -> FrameError:
    return FrameError(
        f"not a frame of the agent protocol: {got}; expected {expected}",
        hint="both ends have to be the same version of Seatrial, started with the same token",
    )
