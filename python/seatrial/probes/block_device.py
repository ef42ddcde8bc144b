"""The bytes that really went to and from the device below a directory, by the kernel's own count.

A program may say that it wrote to a disk what only ever reached somebody's memory. The device's
counters (``/sys/dev/block/*/stat``, Documentation/block/stat.rst) are of the whole device: what
others do meanwhile is in them, so they can show that bytes are missing, and never that they are
the program's own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: "stat" counts in units of 512 bytes, whatever the device's own sectors are.
SECTOR_BYTES: Final = 512
_READ_SECTORS: Final = 2
_WRITTEN_SECTORS: Final = 6
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_DEVICES: Final = Path("/sys/dev/block")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBytes:
    """Bytes moved since boot."""

    read_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The file system that holds a path."""

    filesystem: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """The device below a directory."""

    filesystem: str
    """Its type, such as ext4."""
    name: str
    """Such as vda1; the source of the mount where there is no device."""
    stat: Path | None
    """Its counters; None: the file system lies on no device (tmpfs, overlay, network)."""

    @property
    def is_memory(self) -> bool:
        """Whether files there never leave memory."""
        return self.filesystem in {"tmpfs", "ramfs"}

    def read(self) -> DeviceBytes | None:
        """Read the counters; None: there are none."""
        if self.stat is None:
            return DeviceBytes(read_bytes=0, written_bytes=0) if self.is_memory else None
        try:
            return parse_stat(self.stat.read_text())
        except (OSError, ValueError, IndexError):
            return None


def device_of(path: Path, *, mountinfo: Path = _MOUNTINFO, devices: Path = _DEVICES) -> BlockDevice:
    """Find the device below a path.

    Raises:
        OSError: the path does not exist.
    """
    resolved = path.resolve()
    mount = find_mount(mountinfo.read_text(), resolved)
    number = resolved.stat().st_dev
    place = devices / f"{os.major(number)}:{os.minor(number)}"
    if not place.exists() and mount.source.startswith("/dev/"):
        # Some file systems (btrfs) have a number of their own; their mount names the device.
        number = Path(mount.source).stat().st_rdev
        place = devices / f"{os.major(number)}:{os.minor(number)}"
    stat = place / "stat"
    if not stat.is_file():
        return BlockDevice(filesystem=mount.filesystem, name=mount.source, stat=None)
    return BlockDevice(filesystem=mount.filesystem, name=place.resolve().name, stat=stat)


def find_mount(mountinfo: str, path: Path) -> Mount:
    """Find the mount that a path lies on: the longest that leads there, the last of equals; pure.

    The form of the lines is proc(5)'s: fields, optional ones, a dash, then type and source.
    """
    best, found = -1, Mount(filesystem="unknown", source="unknown")
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, ends = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(ends) < 2:  # noqa: PLR2004 - mount point, type and source
            continue
        point = Path(fields[4].replace("\\040", " "))
        depth = len(point.parts)
        if depth >= best and (path == point or point in path.parents):
            best, found = depth, Mount(filesystem=ends[0], source=ends[1])
    return found


def parse_stat(text: str) -> DeviceBytes:
    """Read a device's ``stat``; pure.

    Raises:
        ValueError: a field is no number.
        IndexError: there are too few.
    """
    fields = text.split()
    return DeviceBytes(
        read_bytes=int(fields[_READ_SECTORS]) * SECTOR_BYTES,
        written_bytes=int(fields[_WRITTEN_SECTORS]) * SECTOR_BYTES,
    )
