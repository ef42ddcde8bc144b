"""Directories of control groups: making, counting and removing them, and handing things down."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.probes.cgroup_books import read_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

V2_CONTROLLERS: Final = ("cpu", "memory", "pids")


class CgroupError(OSError):
    """A group could not be made, limited or removed."""


def walk(place: Path) -> Iterator[Path]:
    """Give a directory and all below it, parents first; what vanishes meanwhile is skipped."""
    if not place.is_dir():
        return
    yield place
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(place), key=lambda one: one.name):
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path))


def hand_cpuset_down(base: Path, relative: str) -> None:
    """Give groups the processors and memory nodes of their parents: v1 makes them without any."""
    place = base
    for part in Path(relative).parts:
        parent, place = place, place / part
        for name in ("cpuset.cpus", "cpuset.mems"):
            with contextlib.suppress(OSError):
                if not (place / name).read_text().strip():
                    (place / name).write_text((parent / name).read_text())


def children_count(place: str) -> int:
    """Count the groups in a group by its links, for the directory of a group is long to read."""
    try:
        # The kernel counts two links besides those of subdirectories (kernfs_refresh_inode).
        return os.stat(place).st_nlink - 2  # noqa: PTH116 - half the cost of a Path, in a polled look
    except OSError:
        return 0


def make_dirs(path: Path) -> None:
    """Make a group and what is above it.

    Raises:
        CgroupError: the kernel refused.
    """
    # Another run may remove an empty parent between our looking and our making.
    for _ in range(5):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CgroupError(error.errno or 0, f"cannot make {path}: {error.strerror}") from error
        return
    raise CgroupError(errno.ENOENT, f"cannot make {path}: a parent keeps vanishing")


def remove_dir(path: Path) -> bool:
    """Remove one group; False: it is not empty."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def enable_controllers(place: Path) -> dict[str, OSError]:
    """Hand the controllers down to the groups below; give those that the kernel refuses, and why.

    A sandbox goes without what is refused: its CPU time is booked all the same, its memory is not,
    and ``problems`` says so.
    """
    have = set(read_words(place / "cgroup.subtree_control"))
    refused: dict[str, OSError] = {}
    for name in V2_CONTROLLERS:
        if name in have or name not in read_words(place / "cgroup.controllers"):
            continue
        try:
            (place / "cgroup.subtree_control").write_text(f"+{name}")
        except OSError as error:
            refused[name] = error
    return refused


def refusals(base: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """Say which controllers groups below cannot get, found out by trying, as ``create`` does."""
    refused = enable_controllers(base)
    names = [name for name in wanted if name in refused]
    if not names:
        return ()
    error = refused[names[0]]
    reason = error.strerror or str(error)
    if error.errno == errno.EBUSY:
        reason += ": the group holds processes itself; move them into a group below it"
    return (f"{base} hands no {', '.join(names)} controller down ({reason})",)
