"""The minimal root of a sandbox."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from seatrial.errors import EnvironmentTrouble
from seatrial.guest.rootfs import DEVICES, DIRECTORIES, GUEST_PATH, build_rootfs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Something to put into a root."""
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF first")
    return path


def inside(root: Path) -> Path:
    """The guest in a root."""
    return root / GUEST_PATH.removeprefix("/")


def test_a_root_has_the_guest_and_every_mount_point(tmp_path: Path, program: Path) -> None:
    """Modes are the stated ones whatever the umask."""
    before = os.umask(0o077)
    try:
        root = build_rootfs(tmp_path / "a" / "root", program)
    finally:
        os.umask(before)
    assert inside(root).read_bytes() == program.read_bytes()
    assert inside(root).stat().st_mode & 0o7777 == 0o755
    for name, mode in DIRECTORIES.items():
        assert (root / name).stat().st_mode & 0o7777 == mode
    assert {path.name for path in (root / "dev").iterdir()} == set(DEVICES)
    assert (root / "etc" / "passwd").read_text().startswith("root:x:0:0:")
    assert {path.name for path in root.iterdir()} == {*DIRECTORIES, inside(root).name}


def test_a_second_call_replaces_only_another_guest(tmp_path: Path, program: Path) -> None:
    """An equal guest stays the same file, so that sandboxes which run it share its pages."""
    root = build_rootfs(tmp_path / "root", program)
    first = inside(root).stat().st_ino
    build_rootfs(root, program)
    assert inside(root).stat().st_ino == first
    program.write_bytes(b"\x7fELF second")
    build_rootfs(root, program)
    assert inside(root).read_bytes() == b"\x7fELF second"


def test_what_cannot_be_made_is_named(tmp_path: Path, program: Path) -> None:
    """A missing guest or an impossible directory is an error of the environment."""
    with pytest.raises(EnvironmentTrouble, match="no-such-guest"):
        build_rootfs(tmp_path / "root", tmp_path / "no-such-guest")
    with pytest.raises(EnvironmentTrouble, match="cannot make the root file system"):
        build_rootfs(program / "below-a-file", program)
