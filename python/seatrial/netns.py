"""Network namespaces held by a descriptor: making an empty one, and what has been put into it.

Such a namespace has no name, so nothing of it stays when the process that holds it is killed.
Namespaces are made and entered on threads of their own, which then end: the namespace belongs to a
thread, and no other thread of this process must ever be moved.

What is in a namespace is read over rtnetlink without pyroute2, for which a look takes ten times as
long: answers are only compared with earlier ones, so they need not be understood.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Result = TypeVar("_Result")
#: Device and inode of a namespace's file: what tells two of them apart.
Identity: TypeAlias = tuple[int, int]

PROC: Final = Path("/proc")
#: Of one answer of the kernel, which comes before the call returns.
LOOK_TIMEOUT_S: Final = 5.0

#: From sched.h of the kernel; Python has unshare and setns only since 3.12.
CLONE_NEWNET: Final = 0x40000000
# From netlink.h, rtnetlink.h and if_link.h.
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_REQUEST_DUMP: Final = 0x301
_ERROR, _DONE = 2, 3
_GET_LINK, _GET_ADDRESS, _GET_ROUTE, _GET_RULE = 18, 22, 26, 34
#: What follows the header of a request; a longer one is logged by the kernel as left over.
_BODY_BYTES: Final = {_GET_LINK: 16, _GET_ADDRESS: 8, _GET_ROUTE: 12, _GET_RULE: 12}
_LINK_BYTES: Final = 16
#: Attributes of an interface that somebody sets: address, name, MTU, link, qdisc, master, queue
#: length, kind, alias, group, promiscuity, XDP. The others are counters and what follows from
#: these.
_LASTING: Final = frozenset({1, 3, 4, 5, 6, 10, 13, 18, 20, 27, 30, 43})
_ANSWER_BYTES_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is in a network namespace, as the kernel says it: to be compared, not to be read.

    Not in it: counters, sysctls, neighbours, sockets and the rules of netfilter.
    """

    interfaces: tuple[bytes, ...]
    addresses: tuple[bytes, ...]
    routes: tuple[bytes, ...]
    rules: tuple[bytes, ...]

    def changes_since(self, before: Content) -> tuple[str, ...]:
        """Name the kinds of things that differ."""
        names = (one.name for one in fields(self))
        return tuple(name for name in names if getattr(self, name) != getattr(before, name))


def make_empty() -> int:
    """Make a network namespace; give the descriptor that keeps it, closed in programs we start.

    Raises:
        OSError: the kernel refused, or there are no more descriptors.
    """

    def make() -> int:
        call("unshare", CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return on_own_thread(make)


def identity_of(descriptor: int) -> Identity:
    """Give what tells a namespace from all others that exist now."""
    seen = os.fstat(descriptor)
    return (seen.st_dev, seen.st_ino)


def inhabited() -> frozenset[Identity]:
    """Find the network namespaces of all processes, by the first thread of each."""
    found: set[Identity] = set()
    for name in os.listdir(PROC):  # noqa: PTH208 - half the time of iterdir, for every process
        if name.isdigit():
            # It has ended, or is just ending.
            with contextlib.suppress(OSError):
                seen = os.stat(f"{PROC}/{name}/ns/net")  # noqa: PTH116 - as above
                found.add((seen.st_dev, seen.st_ino))
    return frozenset(found)


def look_into(descriptor: int) -> Content:
    """Read what is in a namespace.

    Raises:
        OSError: the kernel refused.
    """

    def look() -> Content:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as asking:
            asking.settimeout(LOOK_TIMEOUT_S)
            return Content(
                interfaces=tuple(map(_lasting, _dump(asking, _GET_LINK))),
                addresses=tuple(_dump(asking, _GET_ADDRESS)),
                routes=tuple(_dump(asking, _GET_ROUTE)),
                rules=tuple(_dump(asking, _GET_RULE)),
            )

    return inside(descriptor, look)


def inside(namespace: Path | int, work: Callable[[], _Result]) -> _Result:
    """Do the work in a network namespace, given by its file or a descriptor of it."""

    def enter() -> _Result:
        if isinstance(namespace, int):
            call("setns", namespace, CLONE_NEWNET)
        else:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                call("setns", descriptor, CLONE_NEWNET)
            finally:
                os.close(descriptor)
        return work()

    return on_own_thread(enter)


def on_own_thread(work: Callable[[], _Result]) -> _Result:
    """Do the work on a thread that ends with it; its error is raised here."""
    results: list[_Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - carried over to the calling thread
            errors.append(error)

    thread = threading.Thread(target=run, name="seatrial-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def call(name: str, *arguments: int | bytes | None) -> None:
    """Call a C library function that answers 0, or -1 with errno.

    Raises:
        OSError: it answered otherwise.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


# --- rtnetlink ---------------------------------------------------------------------------------


def _dump(asking: socket.socket, kind: int) -> Iterator[bytes]:
    """Give all of what a kind of request asks for, each without its header."""
    body = bytes(_BODY_BYTES[kind])
    asking.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_DUMP, kind, 0) + body)
    while True:
        answer = asking.recv(_ANSWER_BYTES_MAX)
        for what, content in messages(answer):
            if what == _DONE:
                return
            if what == _ERROR:
                code = -struct.unpack_from("=i", content)[0]
                if code == errno.EOPNOTSUPP:  # a kernel without such things
                    return
                raise OSError(code, f"rtnetlink request {kind}: {os.strerror(code)}")
            yield content


def messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    """Split an answer of netlink into types and contents.

    Raises:
        OSError: it is cut off.
    """
    at = 0
    while at < len(answer):
        left = len(answer) - at
        length, kind = _HEADER.unpack_from(answer, at)[:2] if left >= _HEADER.size else (0, 0)
        if not _HEADER.size <= length <= left:
            raise OSError(errno.EBADMSG, "rtnetlink: an answer is cut off")
        yield kind, answer[at + _HEADER.size : at + length]
        at += _aligned(length)


def _lasting(link: bytes) -> bytes:
    """Give family, type, number and flags of an interface with those attributes that count."""
    kept = [link[:_LINK_BYTES]]
    at = _LINK_BYTES
    while at + _ATTRIBUTE.size <= len(link):
        length, kind = _ATTRIBUTE.unpack_from(link, at)
        if kind in _LASTING:
            kept.append(link[at : at + length])
        at += _aligned(max(length, _ATTRIBUTE.size))
    return b"".join(kept)


def _aligned(length: int) -> int:
    """Give where the next one begins: at a multiple of four bytes."""
    return length + 3 & ~3
