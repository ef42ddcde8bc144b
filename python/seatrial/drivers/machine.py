"""What the drivers of virtual machines share: kernel, initial RAM disk, settings, and the order.

The guest's kernel is Debian's cloud kernel, unpacked by set-up into the user's cache and never
installed. It has what virtual machines need as modules, which the guest loads in the order that
the session says. A machine's role travels on the kernel's command line, or for a copy of a
template in a file (the guest's own words about both are in its module ``machine``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from seatrial import proc, units
from seatrial.drivers.options import OptionError, unknown_option
from seatrial.errors import ConfigError, DriverError, DriverUnavailable, SeatrialError
from seatrial.guest.initrd import build_initrd, resolve_modules
from seatrial.guest.rootfs import DEVICES, GUEST_PATH, build_rootfs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.model.scalar import Scalar

KERNEL_VARIABLE: Final = "SEATRIAL_KERNEL"
KERNEL_SUBDIRECTORY: Final = "seatrial/tools/kernel"
IMAGE_NAME: Final = "vmlinuz"
ELF_NAME: Final = "vmlinux"
RELEASE_NAME: Final = "release"
MODULES_NAME: Final = "modules"
#: What the kernel takes (COMMAND_LINE_SIZE of x86) less the closing zero byte.
COMMAND_LINE_BYTES_MAX: Final = 2047
GUEST_MEMORY_BYTES_MIN: Final = 64 << 20
GUEST_MEMORY_BYTES_MAX: Final = 1 << 40
GUEST_MEMORY_BYTES: Final = 128 << 20
VCPUS_MAX: Final = 64
DISK_BYTES: Final = 2 << 30
DISK_BYTES_MIN: Final = 16 << 20
#: Room for the file system's own structures beside the tools.
TOOLS_SLACK_BYTES: Final = 32 << 20
ROLE_SAFE: Final = "-._:/="
MKFS_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKernel:
    """A kernel for guests, with its modules beside it."""

    image: Path
    modules: Path
    release: str

    @classmethod
    def find(cls) -> Self:
        """Find what set-up fetched, or what ``SEATRIAL_KERNEL`` names.

        Raises:
            DriverUnavailable: there is none; says where it was looked for.
        """
        named = os.environ.get(KERNEL_VARIABLE)
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        directory = Path(named) if named else Path(cache) / KERNEL_SUBDIRECTORY
        image = directory / IMAGE_NAME
        if not os.access(image, os.R_OK):
            raise DriverUnavailable(
                f"no kernel for guests: {image} is missing",
                hint="'make setup' fetches Debian's cloud kernel; or name a directory with "
                f"{IMAGE_NAME} and {MODULES_NAME}/ in {KERNEL_VARIABLE}",
            )
        try:
            release = (directory / RELEASE_NAME).read_text().strip()
        except OSError:
            release = "unknown release"
        return cls(image=image, modules=directory / MODULES_NAME, release=release)

    def elf(self) -> Path:
        """Give the uncompressed kernel, for monitors that unpack none.

        Raises:
            DriverUnavailable: set-up could not unpack it.
        """
        path = self.image.with_name(ELF_NAME)
        if not os.access(path, os.R_OK):
            message = f"no uncompressed kernel for guests: {path} is missing"
            raise DriverUnavailable(message, hint="'make setup' unpacks it; it needs lz4")
        return path

    def load_order(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Give the names of modules and of all that they need, in the order to load them.

        Raises:
            EnvironmentTrouble: one is missing.
        """
        return tuple(path.stem for path in resolve_modules(self.modules, wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """What ``[driver.NAME]`` of an experiment may say about a machine."""

    memory_bytes: int = GUEST_MEMORY_BYTES
    vcpus: int = 1
    disk_bytes: int = DISK_BYTES

    @classmethod
    def parse(cls, name: str, options: Mapping[str, Scalar], *, others: Iterable[str] = ()) -> Self:
        """Read the options of a driver; it knows ``others`` by itself.

        Raises:
            ConfigError: one is unknown or has no meaning; says which are known.
        """
        settings = cls()
        for key, value in options.items():
            where = f"driver.{name}.{key}"
            if key == "memory":
                size = parse_size(where, value, GUEST_MEMORY_BYTES_MIN, GUEST_MEMORY_BYTES_MAX)
                settings = replace(settings, memory_bytes=size)
            elif key == "vcpus":
                settings = replace(settings, vcpus=_parse_vcpus(where, value))
            elif key == "disk":
                size = parse_size(where, value, DISK_BYTES_MIN, GUEST_MEMORY_BYTES_MAX)
                settings = replace(settings, disk_bytes=size)
            else:
                raise unknown_option(where, ("memory", "vcpus", "disk", *others))
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a machine is told to be; the guest reads it as one word."""

    channel: str
    modules: tuple[str, ...] = ()
    address: str | None = None
    data: str | None = None
    tools: str | None = None
    is_template: bool = False

    def text(self) -> str:
        """Give the order as it is written."""
        parts = [f"channel={self.channel}"]
        if self.modules:
            parts.append(f"modules={':'.join(self.modules)}")
        parts += [
            f"{key}={value}"
            for key, value in (
                ("address", self.address),
                ("data", self.data),
                ("tools", self.tools),
            )
            if value is not None
        ]
        return ",".join([*parts, *(["template"] if self.is_template else [])])


def role_text(role: Iterable[str]) -> str:
    """Give a role's words as one word without blanks, quotes or commas; pure."""
    return "+".join(quote(word, safe=ROLE_SAFE) for word in role)


def kernel_command_line(settings: str, order: Order, role: Iterable[str]) -> str:
    """Give a guest kernel's command line.

    Raises:
        DriverError: it is longer than a kernel takes.
    """
    line = f"{settings} -- --machine {order.text()} {role_text(role)}"
    if len(line.encode()) > COMMAND_LINE_BYTES_MAX:
        raise DriverError(
            f"the role is too long for a virtual machine: the kernel's command line would have "
            f"{len(line.encode())} bytes, expected at most {COMMAND_LINE_BYTES_MAX}",
            hint="ask for fewer listeners in one sandbox",
            code="unsupported",
        )
    return line


def build_machine_root(directory: Path, *, guest: Path, kernel: GuestKernel) -> Path:
    """Make the initial RAM disk that all machines of a session boot from, and give its path.

    Raises:
        EnvironmentTrouble: something cannot be read or written.
    """
    root = build_rootfs(directory / "rootfs", guest=guest)
    return build_initrd(
        directory / "initrd.cpio",
        root=root,
        init=GUEST_PATH,
        modules=sorted(kernel.modules.glob("*.ko")),
        # The kernel's own /dev comes in their place.
        leave_out=[f"dev/{name}" for name in DEVICES],
    )


def make_disk(path: Path, *, size_bytes: int, content: Path | None = None) -> None:
    """Make a raw image with an ext4 file system, sparse, and with a directory's content if any.

    Raises:
        DriverError: the image cannot be made.
    """
    words = ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,root_owner=0:0"]
    words += [] if content is None else ["-d", str(content)]
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        with path.open("xb") as file:
            file.truncate(size_bytes)
        proc.run([*words, str(path)], timeout_s=MKFS_TIMEOUT_S, env=environment)
    except (OSError, SeatrialError) as error:
        path.unlink(missing_ok=True)
        message = f"cannot make the disk {path} of {units.format_bytes(size_bytes)}: {error}"
        raise DriverError(message, hint="it needs mkfs.ext4 (e2fsprogs) and free space") from error


def tools_disk_bytes(directory: Path) -> int:
    """Give the size of an image that holds a directory of tools."""
    sizes = (path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return sum(-(-size // 4096) * 4096 for size in sizes) * 5 // 4 + TOOLS_SLACK_BYTES


def parse_size(where: str, value: Scalar, least: int, most: int) -> int:
    """Read a size option such as ``"256MiB"``.

    Raises:
        ConfigError: it is no size, or out of range.
    """
    expected = f"a size from {units.format_bytes(least)} to {units.format_bytes(most)}"
    try:
        size = units.parse_size_bytes(value) if isinstance(value, str) else 0
    except ConfigError:
        size = 0
    if not least <= size <= most:
        raise OptionError(where, f'expected {expected}, such as "256MiB"', value=value)
    return size


def _parse_vcpus(where: str, value: Scalar) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= VCPUS_MAX:
        raise OptionError(where, f"expected a number from 1 to {VCPUS_MAX}", value=value)
    return value
