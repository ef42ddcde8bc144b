"""Finds RunD's raw trees in a directory or an archive, and reads their files.

A *tree* is one directory ``time_RUNTIME_STAMP``, ``density_RUNTIME_STAMP`` or
``mem_RUNTIME_STAMP``; a *data set* is a directory that holds trees. Nothing is unpacked: an
archive's files are read into memory, within bounds.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError
from seatrial.units import MIB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The published data are 25,000 files of 126 MB.
FILES_MAX: Final = 500_000
FILE_BYTES_MAX: Final = 64 * MIB
TOTAL_BYTES_MAX: Final = 2048 * MIB
#: How far below what is given a data set may lie, and files below their tree.
DEPTH_MAX: Final = 6
KINDS: Final = ("time", "density", "mem")
EXPECTED: Final = (
    "directories such as time_rund_05091621, density_rund_05091637 or mem_rund_05092006"
)

_TREE: Final = re.compile(r"(?P<kind>time|density|mem)_(?P<runtime>[^_/]+)_(?P<stamp>[^/]+)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One experiment on one runtime: its files by their path in it, such as ``con_010/cpu.txt``."""

    kind: str
    runtime: str
    name: str
    files: dict[str, bytes] = field(default_factory=dict)

    def place(self, path: str) -> str:
        """Names a file so that a reader finds it."""
        return f"{self.name}/{path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """The trees that lie side by side, by name."""

    name: str
    trees: tuple[Tree, ...]


def read_data_sets(path: Path) -> tuple[DataSet, ...]:
    """Reads every tree below a directory, or in a tar archive, compressed or not.

    Raises:
        ConfigError: there is no such thing, no tree in it, or more than the bounds allow.
    """
    bounds = _Bounds(path)
    try:
        trees = _in_directory(path, bounds) if path.is_dir() else _in_archive(path, bounds)
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConfigError(
            f"cannot read {path}: {reason}",
            hint="give a directory with RunD's raw data, or a tar archive of one",
            code="import-unreadable",
        ) from error
    roots: dict[str, list[Tree]] = {}
    for (root, _), tree in sorted(trees.items()):
        roots.setdefault(root, []).append(tree)
    if not roots:
        raise ConfigError(
            f"{path} holds no raw data of RunD; expected {EXPECTED}",
            hint="give the directory 'data' of the artifact, or ae_data or paper_data in it",
            code="import-empty",
        )
    names = {root: PurePosixPath(root).name or path.resolve().name for root in roots}
    return tuple(DataSet(name=names[root], trees=tuple(members)) for root, members in roots.items())


class _Bounds:
    """Keeps count of what was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files_count = 0
        self._read_bytes = 0

    def take(self, name: str, size_bytes: int) -> None:
        """Books a file before it is read."""
        self._files_count += 1
        self._read_bytes += size_bytes
        if (
            self._files_count <= FILES_MAX
            and size_bytes <= FILE_BYTES_MAX
            and self._read_bytes <= TOTAL_BYTES_MAX
        ):
            return
        raise ConfigError(
            f"{self._path}: too much at {name}; expected at most {FILES_MAX} files of up to "
            f"{format_bytes(FILE_BYTES_MAX)} and {format_bytes(TOTAL_BYTES_MAX)} together",
            hint="import one data set after the other",
            code="import-too-large",
        )


def _in_directory(path: Path, bounds: _Bounds) -> dict[tuple[str, str], Tree]:
    trees: dict[tuple[str, str], Tree] = {}
    if match := _TREE.match(path.resolve().name):
        # A tree by itself: its data set is what holds it.
        root = path.resolve().parent.name
        trees[root, match[0]] = _directory_tree(str(path), match, bounds)
        return trees
    for root, name in _find(str(path), "", DEPTH_MAX):
        folder = os.path.join(path, root, name)  # noqa: PTH118 - thousands of paths: text is faster
        match = _TREE.match(name)
        if match is not None:
            trees[root, name] = _directory_tree(folder, match, bounds)
    return trees


def _find(base: str, below: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yields where trees are, as their data set's path below ``base`` and their name."""
    with os.scandir(os.path.join(base, below)) as entries:  # noqa: PTH118 - as above
        folders = sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        )
    for name in folders:
        if _TREE.match(name):
            yield below, name
        elif depth > 1:
            yield from _find(base, f"{below}/{name}".lstrip("/"), depth - 1)


def _directory_tree(folder: str, match: re.Match[str], bounds: _Bounds) -> Tree:
    tree = _tree(match)
    pending = [("", 1)]
    while pending:
        below, depth = pending.pop()
        with os.scandir(f"{folder}/{below}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if depth < DEPTH_MAX:
                        pending.append((f"{below}{entry.name}/", depth + 1))
                elif entry.is_file(follow_symlinks=False):
                    name = below + entry.name
                    tree.files[name] = _read(entry.path, name, bounds)
    return tree


def _read(path: str, name: str, bounds: _Bounds) -> bytes:
    """Reads a file without the layers that Python puts over one: there are tens of thousands."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return b""
        bounds.take(name, found.st_size)
        data = os.read(descriptor, found.st_size)
        while len(data) < found.st_size:
            more = os.read(descriptor, found.st_size - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)


def _in_archive(path: Path, bounds: _Bounds) -> dict[tuple[str, str], Tree]:
    trees: dict[tuple[str, str], Tree] = {}
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            place = next((n for n, part in enumerate(parts[:-1]) if _TREE.match(part)), None)
            if place is None or not member.isreg():
                continue
            match = _TREE.match(parts[place])
            content = archive.extractfile(member)
            if match is None or content is None:
                continue
            bounds.take(member.name, member.size)
            key = ("/".join(parts[:place]), parts[place])
            tree = trees.setdefault(key, _tree(match))
            tree.files["/".join(parts[place + 1 :])] = content.read(member.size)
    return trees


def _tree(match: re.Match[str]) -> Tree:
    return Tree(kind=match["kind"], runtime=match["runtime"], name=match[0])
