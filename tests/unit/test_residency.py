"""Cold and warm are looked at page by page, on real files."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial.errors import EnvironmentTrouble
from seatrial.probes.residency import cool_files, read_residency, warm_files

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = 64


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file on a disk (a RAM disk has no cold pages) that was written back."""
    if is_in_memory(tmp_path):
        pytest.skip("the temporary directory is in memory, where no page is ever cold")
    path = tmp_path / "image"
    path.write_bytes(os.urandom(PAGES * mmap.PAGESIZE - 1))
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    yield path
    path.unlink()


def is_in_memory(path: Path) -> bool:
    """Whether a path is on tmpfs."""
    found = max(
        (
            line.split()
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if path.is_relative_to(line.split()[1])
        ),
        key=lambda fields: len(fields[1]),
    )
    return found[2] in {"tmpfs", "ramfs"}


def test_cool_then_warm(file: Path, tmp_path: Path) -> None:
    """Dropped pages are seen to be gone, read ones to be there; the last, partial one counts."""
    nowhere = tmp_path / "drop_caches"
    assert cool_files([file], drop=nowhere)
    assert nowhere.read_text() == "3"
    cold = read_residency([file])
    assert (cold.pages_count, cold.resident_count, cold.ratio) == (PAGES, 0, 0.0)
    warm_files([file])
    assert read_residency([file]).ratio == 1.0


def test_a_mapped_page_stays(file: Path, tmp_path: Path) -> None:
    """What a live process maps cannot be dropped, and is not reported as cold."""
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapping,
    ):
        assert mapping[0:1] is not None
        cool_files([file], drop=tmp_path / "drop_caches")
        assert read_residency([file]).resident_count > 0


def test_what_is_not_there_has_no_share(tmp_path: Path) -> None:
    """A missing file has no pages; dropping it by name is an error that names it."""
    missing = tmp_path / "missing"
    (tmp_path / "empty").touch()
    assert read_residency([missing, tmp_path / "empty"]).ratio is None
    with pytest.raises(EnvironmentTrouble, match="missing"):
        cool_files([missing], drop=tmp_path / "drop_caches")


def test_without_root_only_the_files_pages_go(file: Path) -> None:
    """The host's caches cannot be dropped, which is told and not hidden."""
    denied = Path("/proc/version")  # read-only for everybody
    warm_files([file])
    assert not cool_files([file], drop=denied)
    assert read_residency([file]).ratio == 0.0
