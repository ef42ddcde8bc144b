"""Tries things that must not happen in a process with threads; a program of its own.

It is started as ``python -I -S trials.py NAME``, says what it found as JSON, and ends; everything
it made lives in namespaces that end with it. ``-I`` keeps it fast and out of anybody's paths, so it
may use nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import struct
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: linux/sched.h
NAMESPACES: Final = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x00000080,
}
#: linux/mount.h
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
#: linux/rtnetlink.h, linux/netlink.h, linux/if_link.h
RTM_NEWLINK: Final = 16
NLM_F_REQUEST_ACK_CREATE_EXCL: Final = 0x1 | 0x4 | 0x400 | 0x200
NLMSG_ERROR: Final = 2
IFLA_IFNAME: Final = 3
IFLA_LINKINFO: Final = 18
IFLA_INFO_KIND: Final = 1
#: linux/if_tun.h
TUNSETIFF: Final = 0x400454CA
IFF_TAP_NO_PI: Final = 0x0002 | 0x1000
#: linux/vm_sockets.h
GET_LOCAL_CID: Final = 0x7B9
#: linux/kvm.h; the sizes of their structures are part of the numbers.
KVM_API_VERSION: Final = 12
KVM_GET_API_VERSION: Final = 0xAE00
KVM_CREATE_VM: Final = 0xAE01
KVM_GET_VCPU_MMAP_SIZE: Final = 0xAE04
KVM_CREATE_VCPU: Final = 0xAE41
KVM_SET_USER_MEMORY_REGION: Final = 0x4020AE46
KVM_RUN: Final = 0xAE80
KVM_SET_REGS: Final = 0x4090AE82
KVM_GET_SREGS: Final = 0x8138AE83
KVM_SET_SREGS: Final = 0x4138AE84
KVM_EXIT_IO: Final = 2
KVM_EXIT_HLT: Final = 5
SREGS_BYTES: Final = 312
GUEST_BYTES: Final = 0x1000
GUEST_PORT: Final = 0x3F8
#: add ax, bx; out dx, al; hlt (16-bit x86 code).
GUEST_CODE: Final = bytes([0x01, 0xD8, 0xEE, 0xF4])
GUEST_ANSWER: Final = 42


def call(name: str, *arguments: int | bytes | None) -> None:
    """Call a C library function that answers 0, or -1 with errno.

    Raises:
        OSError: it answered otherwise.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def outcome(work: Callable[[], object]) -> str:
    """Do it; give an empty text, or the kernel's reason."""
    try:
        work()
    except OSError as error:
        return error.strerror or os.strerror(error.errno or errno.EIO)
    return ""


def enter(*names: str) -> None:
    """Go into new namespaces; without root, into a user namespace first."""
    if os.geteuid() != 0 and "user" not in names:
        call("unshare", NAMESPACES["user"])
    for name in names:
        call("unshare", NAMESPACES[name])


def try_namespaces() -> Mapping[str, str]:
    """Try each namespace as this user (root: without a user namespace)."""
    found = {}
    if os.geteuid() != 0:
        found["user"] = outcome(partial(call, "unshare", NAMESPACES["user"]))
    for name, flag in NAMESPACES.items():
        if name != "user":
            found[name] = outcome(partial(call, "unshare", flag))
    if os.geteuid() == 0:
        found["user"] = outcome(partial(call, "unshare", NAMESPACES["user"]))
    return found


def make_link(kind: str, name: str) -> None:
    """Make an interface of a kind over netlink.

    Raises:
        OSError: the kernel refused.
    """
    info = _attribute(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, kind.encode()))
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, name.encode() + b"\0")
    body += info
    length = struct.calcsize("=IHHII") + len(body)
    head = struct.pack("=IHHII", length, RTM_NEWLINK, NLM_F_REQUEST_ACK_CREATE_EXCL, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.settimeout(5)
        link.send(head + body)
        reply = link.recv(65536)
    kind_of_reply, code = struct.unpack_from("=H", reply, 4)[0], struct.unpack_from("=i", reply, 16)
    if kind_of_reply == NLMSG_ERROR and code[0] != 0:
        raise OSError(-code[0], os.strerror(-code[0]))


def _attribute(number: int, value: bytes) -> bytes:
    text = struct.pack("=HH", 4 + len(value), number) + value
    return text + b"\0" * (-len(text) % 4)


def make_tap() -> None:
    """Make a tap, which goes when its descriptor is closed.

    Raises:
        OSError: the kernel refused.
    """
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"probe0", IFF_TAP_NO_PI))
    finally:
        os.close(device)


def try_links() -> Mapping[str, str]:
    """Try to make interfaces, in a network namespace that ends with this process."""
    enter("net")
    kinds = ("veth", "bridge", "dummy")
    found = {kind: outcome(partial(make_link, kind, f"t{kind}")) for kind in kinds}
    found["tap"] = outcome(make_tap)
    return found


def try_overlay() -> Mapping[str, str]:
    """Mount an overlay over a tmpfs and read through it, where nobody else sees it."""
    enter("mount")
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)

    def tmpfs() -> None:
        call("mount", b"none", b"/tmp", b"tmpfs", 0, b"size=1m")

    def overlay() -> None:
        base = Path("/tmp")  # noqa: S108 - the tmpfs above, which only this process sees
        for name in ("lower", "upper", "work", "merged"):
            (base / name).mkdir()
        (base / "lower/file").write_text("below")
        options = b"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
        call("mount", b"none", b"/tmp/merged", b"overlay", 0, options)
        (base / "merged/file").write_text("above")
        if (base / "lower/file").read_text() != "below":
            raise OSError(errno.EIO, "a write through an overlay reached its lower layer")

    found = {"tmpfs": outcome(tmpfs)}
    if not found["tmpfs"]:
        found["overlay"] = outcome(overlay)
    return found


def try_devices() -> Mapping[str, str]:
    """Open what microVMs use, and ask the vsock transport for our address."""

    def vsock() -> None:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
        device = os.open("/dev/vsock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, GET_LOCAL_CID, struct.pack("I", 0))
        finally:
            os.close(device)

    def opens(path: str) -> Callable[[], None]:
        return lambda: os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    return {
        "vsock": outcome(vsock),
        "vhost-net": outcome(opens("/dev/vhost-net")),
        "vhost-vsock": outcome(opens("/dev/vhost-vsock")),
        "fuse": outcome(opens("/dev/fuse")),
        "loop": outcome(opens("/dev/loop-control")),
        "device-mapper": outcome(opens("/dev/mapper/control")),
    }


def try_kvm() -> Mapping[str, str]:
    """Run a guest of three instructions: it adds, says the sum on a port, and halts."""
    found: dict[str, str] = {}
    with contextlib.ExitStack() as stack:

        def keep(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        def run() -> None:
            kvm = keep(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
            version = fcntl.ioctl(kvm, KVM_GET_API_VERSION)
            found["version"] = str(version)
            if version != KVM_API_VERSION:
                raise OSError(errno.EPROTO, f"API version {version}, expected {KVM_API_VERSION}")
            machine = keep(fcntl.ioctl(kvm, KVM_CREATE_VM, 0))
            memory = mmap.mmap(-1, GUEST_BYTES)
            memory[: len(GUEST_CODE)] = GUEST_CODE
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            region = struct.pack("=IIQQQ", 0, 0, GUEST_BYTES, GUEST_BYTES, address)
            fcntl.ioctl(machine, KVM_SET_USER_MEMORY_REGION, region)
            cpu = keep(fcntl.ioctl(machine, KVM_CREATE_VCPU, 0))
            size = fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE)
            shared = mmap.mmap(cpu, size)
            _set_registers(cpu)
            found["answer"] = str(_answer(cpu, shared))

        found["trouble"] = outcome(run)
    return found


def _set_registers(cpu: int) -> None:
    special = bytearray(SREGS_BYTES)
    fcntl.ioctl(cpu, KVM_GET_SREGS, special)
    # The code segment comes first: its base (8 bytes), limit (4) and selector (2).
    struct.pack_into("=Q", special, 0, 0)
    struct.pack_into("=H", special, 12, 0)
    fcntl.ioctl(cpu, KVM_SET_SREGS, bytes(special))
    general = [0] * 18
    general[0], general[1], general[3] = GUEST_ANSWER - 2, 2, GUEST_PORT  # rax, rbx, rdx
    general[16], general[17] = GUEST_BYTES, 2  # rip, rflags with its reserved bit
    fcntl.ioctl(cpu, KVM_SET_REGS, struct.pack("=18Q", *general))


def _answer(cpu: int, shared: mmap.mmap) -> int:
    """Run until the guest halts; give what it said.

    Raises:
        OSError: it left for another reason.
    """
    said = -1
    for _ in range(4):
        fcntl.ioctl(cpu, KVM_RUN, 0)
        (reason,) = struct.unpack_from("=I", shared, 8)
        if reason == KVM_EXIT_IO:
            (offset,) = struct.unpack_from("=Q", shared, 40)
            said = shared[offset]
        elif reason == KVM_EXIT_HLT:
            return said
        else:
            raise OSError(errno.EIO, f"the guest ended with exit reason {reason}, expected a halt")
    raise OSError(errno.EIO, "the guest did not halt")


TRIALS: Final[Mapping[str, Callable[[], Mapping[str, str]]]] = {
    "namespaces": try_namespaces,
    "links": try_links,
    "overlay": try_overlay,
    "devices": try_devices,
    "kvm": try_kvm,
}


def main() -> None:
    """Try what the first argument names."""
    json.dump(TRIALS[sys.argv[1]](), sys.stdout)


if __name__ == "__main__":
    main()
