"""The commands that would make a thin pool for containerd's snapshotter devmapper; never run.

Sizes follow the kernel's Documentation/admin-guide/device-mapper/thin-provisioning.rst: metadata of
48 bytes for each block of data, at least 2 MiB and at most 16 GiB; blocks of 64 KiB; the pool tells
of running full when a tenth is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seatrial.errors import ConfigError
from seatrial.units import format_bytes

SECTOR_BYTES: Final = 512
BLOCK_BYTES: Final = 64 << 10
METADATA_BYTES_PER_BLOCK: Final = 48
METADATA_BYTES_MIN: Final = 2 << 20
METADATA_BYTES_MAX: Final = 16 << 30
DATA_BYTES_MIN: Final = 1 << 30
#: The pool warns when a tenth of its blocks is left.
LOW_WATER_DIVISOR: Final = 10
#: Kata's and containerd's examples give each container a disk of ten gigabytes, thinly.
IMAGE_BYTES_MAX: Final = 10 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinPool:
    """A pool in two sparse files; all numbers follow from the size of the data."""

    data_bytes: int
    directory: Path = Path("/var/lib/containerd/devmapper")
    name: str = "seatrial-pool"

    def __post_init__(self) -> None:
        """Refuse sizes that a pool cannot have.

        Raises:
            ConfigError: the size is too small.
        """
        if self.data_bytes < DATA_BYTES_MIN:
            raise ConfigError(
                f"--thin-pool {self.data_bytes} bytes: expected {format_bytes(DATA_BYTES_MIN)} "
                "or more, since each container's image is kept in it",
                hint="for example --thin-pool 100GiB; the file is sparse",
                code="thin-pool-size",
            )

    @property
    def blocks_count(self) -> int:
        """Whole blocks of 64 KiB."""
        return self.data_bytes // BLOCK_BYTES

    @property
    def usable_bytes(self) -> int:
        """The size in whole blocks; the pool wants no torn one at its end."""
        return self.blocks_count * BLOCK_BYTES

    @property
    def metadata_bytes(self) -> int:
        """Room for the mapping of every block, in whole mebibytes."""
        wanted = self.blocks_count * METADATA_BYTES_PER_BLOCK
        rounded = -(-wanted // (1 << 20)) << 20
        return min(max(rounded, METADATA_BYTES_MIN), METADATA_BYTES_MAX)

    @property
    def low_water_blocks_count(self) -> int:
        """Free blocks below which the pool tells so."""
        return max(self.blocks_count // LOW_WATER_DIVISOR, 1)

    @property
    def image_bytes(self) -> int:
        """Size of each container's thin disk."""
        return min(IMAGE_BYTES_MAX, self.usable_bytes)

    def commands(self) -> tuple[str, ...]:
        """Give the commands, in their order."""
        data, metadata = self.directory / "data", self.directory / "metadata"
        table = (
            f"0 {self.usable_bytes // SECTOR_BYTES} thin-pool $META $DATA "
            f"{BLOCK_BYTES // SECTOR_BYTES} {self.low_water_blocks_count} 1 skip_block_zeroing"
        )
        return (
            f"mkdir -p {self.directory}",
            f"truncate -s {self.usable_bytes} {data}",
            f"truncate -s {self.metadata_bytes} {metadata}",
            f"DATA=$(losetup --find --show --direct-io=on {data})",
            f"META=$(losetup --find --show --direct-io=on {metadata})",
            f'dmsetup create {self.name} --table "{table}"',
        )

    def removal(self) -> tuple[str, ...]:
        """Give the commands that take it away again."""
        data, metadata = self.directory / "data", self.directory / "metadata"
        return (
            f"dmsetup remove {self.name}",
            f"losetup --detach $(losetup --associated {data} --output NAME --noheadings)",
            f"losetup --detach $(losetup --associated {metadata} --output NAME --noheadings)",
            f"rm {data} {metadata}",
        )

    def containerd_config(self) -> tuple[str, ...]:
        """Give the lines for containerd's config.toml."""
        return (
            "[plugins.'io.containerd.snapshotter.v1.devmapper']",
            f"  root_path = '{self.directory}'",
            f"  pool_name = '{self.name}'",
            f"  base_image_size = '{self.image_bytes >> 20}MB'",
            "  discard_blocks = true",
        )

    def text(self, *, free_bytes: int | None = None) -> str:
        """Give all of it as one text that a shell would take, with the notes as comments."""
        notes = [
            (
                f"a thin pool of {format_bytes(self.usable_bytes)}: {self.blocks_count} blocks of "
                f"{format_bytes(BLOCK_BYTES)}, metadata {format_bytes(self.metadata_bytes)}, tells "
                f"when fewer than {self.low_water_blocks_count} blocks are free"
            ),
            "printed only: nothing was run, and nothing was changed",
            (
                "a pool in files costs a second file system below each container: give real "
                "devices instead of the two losetup lines for numbers to publish"
            ),
        ]
        if free_bytes is not None and free_bytes < self.usable_bytes:
            notes.append(
                f"WARNING: only {format_bytes(free_bytes)} are free there; the files are sparse, "
                "so it fails when they are filled"
            )
        lines = [f"# {note}" for note in notes]
        lines += ["", *self.commands(), "", "# in containerd's config.toml:"]
        lines += [f"#   {line}" for line in self.containerd_config()]
        lines += ["", "# to remove it again:", *(f"#   {line}" for line in self.removal())]
        return "\n".join(lines)
