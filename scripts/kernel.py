"""Provides a kernel for virtual machines: Debian's cloud kernel, unpacked and not installed.

The package is fetched with apt's own check of its signature and unpacked into
`${XDG_CACHE_HOME:-~/.cache}/seatrial/tools/kernel-RELEASE/`: the kernel, the modules that our
machines use, and the release's name. Nothing goes to /boot or /lib/modules, and this machine's own
kernel is not touched. Distributions drop old kernels from their archives, so none is pinned: what
was fetched stays, and its release is written down with every result.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from runsc import cache
from steps import StepError, find_tool, output_of, run, say, step

PACKAGE = "linux-image-cloud-amd64"
#: What virtual machines need of a kernel that has it as modules; one that is built in is no file.
MODULES = (
    "failover",
    "net_failover",
    "virtio",
    "virtio_blk",
    "virtio_console",
    "virtio_mmio",
    "virtio_net",
    "virtio_ring",
    "vmw_vsock_virtio_transport",
    "vmw_vsock_virtio_transport_common",
    "vsock",
)
#: Packers of kernels by how their output begins.
PACKED = {
    b"\x02\x21\x4c\x18": "lz4",
    b"\xfd7zXZ\x00": "xz",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def provide() -> None:
    """Makes sure that the cache holds a kernel; without one, says what is lost."""
    named = os.environ.get("SEATRIAL_KERNEL")
    if named:
        say("kernel", f"using SEATRIAL_KERNEL={named}")
        return
    link = cache() / "kernel"
    try:
        if not (link / "vmlinuz").exists():
            cache().mkdir(parents=True, exist_ok=True)
            with (cache() / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # two clones may be set up at once
                if not (link / "vmlinuz").exists():
                    fetch(link)
        say("kernel", f"{(link / 'release').read_text(encoding='ascii').strip()} present")
    except (StepError, OSError) as error:
        say("kernel", f"not fetched: {error}")
        say("kernel", "without it: no measurement of virtual machines (qemu, firecracker)")


def fetch(link: Path) -> None:
    """Fetches the package, keeps what is needed of it, and lets the link name that."""
    tools = {name: find_tool(name) for name in ("apt-get", "apt-cache", "dpkg-deb")}
    missing = [name for name, path in tools.items() if path is None]
    if missing:
        message = f"{', '.join(missing)} not found: the kernel comes as a Debian package"
        raise StepError(message)
    with tempfile.TemporaryDirectory(dir=cache()) as folder, step("kernel", "fetching it, once"):
        image = image_package(str(tools["apt-get"]), str(tools["apt-cache"]))
        run([tools["apt-get"], "-q", "download", image], log="kernel", cwd=Path(folder))
        (package,) = Path(folder).glob("*.deb")
        unpacked = Path(folder) / "unpacked"
        run([tools["dpkg-deb"], "-x", package, unpacked], log="kernel")
        keep(unpacked, link)


def image_package(apt_get: str, apt_cache: str) -> str:
    """The package that the name for the newest cloud kernel stands for."""
    command = [apt_cache, "depends", "--important", PACKAGE]
    pattern = r"^\s*Depends: (linux-image-\S+)$"
    found = re.search(pattern, output_of(command) or "", re.MULTILINE)
    if found is None and os.geteuid() == 0:
        run([apt_get, "update", "-q"], log="kernel", hint="apt-get update must work here")
        found = re.search(pattern, output_of(command) or "", re.MULTILINE)
    if found is None:
        message = f"this system's package lists have no {PACKAGE}"
        raise StepError(message, hint="run apt-get update as root, or set SEATRIAL_KERNEL")
    return found[1]


def unpack_elf(image: Path, elf: Path) -> None:
    """Unpacks a kernel for monitors that do not.

    The header of the image (Linux boot protocol 2.08 and later) says where the payload is; the
    kernel's build appends four bytes to it, its size.
    """
    data = image.read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = ((data[0x1F1] or 4) + 1) * 512 + offset
    payload = data[start : start + length]
    kind = next((name for magic, name in PACKED.items() if payload.startswith(magic)), None)
    tool = find_tool(kind) if kind else None
    if tool is None:
        message = f"cannot unpack the kernel: it needs {kind or 'a packer that is not known here'}"
        raise StepError(message)
    packed = elf.with_name("payload")
    packed.write_bytes(payload[:-4])
    with elf.open("wb") as output:
        subprocess.run([tool, "-dc", packed], stdout=output, stderr=subprocess.DEVNULL, check=False)
    packed.unlink()
    with elf.open("rb") as file:
        is_elf = file.read(4) == b"\x7fELF"
    if not is_elf:
        elf.unlink()
        message = f"{kind} made no program of the kernel"
        raise StepError(message)


def keep(unpacked: Path, link: Path) -> None:
    """Moves kernel and modules to their place, whole or not at all."""
    image = next(unpacked.glob("boot/vmlinuz-*"), None)
    if image is None:
        message = "the kernel's package holds no boot/vmlinuz-*"
        raise StepError(message)
    release = image.name.removeprefix("vmlinuz-")
    home = cache() / f"kernel-{release}"
    draft = unpacked.with_name("kept")
    (draft / "modules").mkdir(parents=True)
    shutil.copyfile(image, draft / "vmlinuz")
    try:
        unpack_elf(image, draft / "vmlinux")
    except StepError as error:
        say("kernel", f"{error}; without it: no firecracker")
    for module in unpacked.rglob("*.ko"):
        if module.stem in MODULES:
            shutil.copyfile(module, draft / "modules" / module.name)
    (draft / "release").write_text(f"{release}\n", encoding="ascii")
    shutil.rmtree(home, ignore_errors=True)
    draft.rename(home)
    fresh = link.with_name(f".kernel-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(home.name)
    fresh.replace(link)
