"""Which device is below a path, and what its counters say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seatrial.probes.block_device import (
    SECTOR_BYTES,
    BlockDevice,
    DeviceBytes,
    device_of,
    find_mount,
    parse_stat,
)

STAT = "  107263  20514  12345678   49384   118731  106938  7654321  77003   0  56788  131000\n"
MOUNTINFO = """\
21 26 0:19 / /sys rw,nosuid shared:7 - sysfs sysfs rw
26 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 26 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=100k
40 26 0:50 / /srv/my\\040data rw - btrfs /dev/sdb1 rw,subvol=/
41 26 0:51 / /over rw - overlay overlay rw,lowerdir=/a
"""


def test_sectors_become_bytes() -> None:
    """The kernel counts 512 bytes, whatever the device's sectors are (block/stat.rst)."""
    assert parse_stat(STAT) == DeviceBytes(
        read_bytes=12_345_678 * SECTOR_BYTES, written_bytes=7_654_321 * SECTOR_BYTES
    )
    with pytest.raises(IndexError):
        parse_stat("1 2 3")


@pytest.mark.parametrize(
    ("path", "filesystem", "source"),
    [
        ("/", "ext4", "/dev/vda"),
        ("/opt/x", "ext4", "/dev/vda"),
        ("/run/x/y", "tmpfs", "tmpfs"),
        ("/runner", "ext4", "/dev/vda"),
        ("/srv/my data/f", "btrfs", "/dev/sdb1"),
        ("/over/f", "overlay", "overlay"),
    ],
)
def test_the_longest_mount_wins(path: str, filesystem: str, source: str) -> None:
    """A name that only begins like a mount point is not below it."""
    found = find_mount(MOUNTINFO, Path(path))
    assert (found.filesystem, found.source) == (filesystem, source)


def test_a_device_is_found_by_the_number_of_its_files(tmp_path: Path) -> None:
    """Its counters are read from the place of that number."""
    number = tmp_path.stat().st_dev
    place = tmp_path / "block" / f"{os.major(number)}:{os.minor(number)}"
    place.mkdir(parents=True)
    (place / "stat").write_text(STAT)
    found = device_of(tmp_path, devices=tmp_path / "block")
    assert found.stat == place / "stat"
    assert found.read() == parse_stat(STAT)
    (place / "stat").write_text("garbage")
    assert found.read() is None


def test_without_a_device_nothing_is_known(tmp_path: Path) -> None:
    """But of memory it is known that nothing ever leaves it."""
    found = device_of(tmp_path, devices=tmp_path / "none")
    assert found.stat is None
    for filesystem, expected in (
        ("tmpfs", DeviceBytes(read_bytes=0, written_bytes=0)),
        ("overlay", None),
    ):
        device = BlockDevice(filesystem=filesystem, name="x", stat=None)
        assert device.read() == expected
