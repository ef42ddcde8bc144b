"""The initial RAM disk of a virtual machine: the sandbox's root and kernel modules, as one archive.

The archive is the kernel's "newc" cpio format (Documentation/driver-api/early-userspace): a header
of hexadecimal fields, the name, the content, each padded to four bytes. It is written here because
the format is thirty lines, and the cpio program is not on every machine.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Final

from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: Where the kernel looks for its first program, and where the guest looks for modules.
INIT_PATH: Final = "/init"
MODULES_PATH: Final = "/modules"
_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"
_ALIGNMENT: Final = 4
_MODE_LINK: Final = 0o120777
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")


def build_initrd(
    target: Path, *, root: Path, init: str, modules: Iterable[Path], leave_out: Iterable[str] = ()
) -> Path:
    """Write an archive of a root directory and modules; ``init`` is what the kernel starts.

    Names in ``leave_out`` are relative to the root; nothing below them is taken either.

    Raises:
        EnvironmentTrouble: something cannot be read, or the archive cannot be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            numbers = iter(range(1, 1 << 31))
            for name, mode, content in _entries(root, init, modules, frozenset(leave_out)):
                file.write(record(name, mode=mode, content=content, number=next(numbers)))
            file.write(record(_TRAILER, mode=0, content=b"", number=0))
        partial.replace(target)
    except OSError as error:
        raise EnvironmentTrouble(
            f"cannot write the initial RAM disk {target}: {error}",
            hint="the state directory must be writable and on a file system with free space",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def record(name: str, *, mode: int, content: bytes, number: int) -> bytes:
    """Give one entry of an archive; pure. Everything belongs to root and has no time."""
    encoded = os.fsencode(name) + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + encoded
    return _padded(head) + _padded(content)


def resolve_modules(directory: Path, wanted: Iterable[str]) -> tuple[Path, ...]:
    """Give the files of modules and of all that they need, in the order to load them.

    A module that is no file is taken for one that the kernel has built in, but only where
    another needs it.

    Raises:
        EnvironmentTrouble: a wanted module is not there.
    """
    order: dict[str, Path] = {}

    def take(name: str, *, is_wanted: bool) -> None:
        path = directory / f"{name}.ko"
        if name in order:
            return
        if not path.is_file():
            if is_wanted:
                message = f"the kernel module {path} is missing"
                raise EnvironmentTrouble(message, hint="run 'make setup' to fetch the kernel anew")
            return
        for needed in dependencies(path.read_bytes()):
            take(needed, is_wanted=False)
        order[name] = path

    for name in wanted:
        take(name, is_wanted=True)
    return tuple(order.values())


def dependencies(module: bytes) -> tuple[str, ...]:
    """Give the modules that a module says it needs; pure."""
    found = _DEPENDS.search(module)
    return tuple(filter(None, found[1].decode("ascii").split(","))) if found else ()


def _entries(
    root: Path, init: str, modules: Iterable[Path], leave_out: frozenset[str]
) -> Iterator[tuple[str, int, bytes]]:
    yield ".", stat.S_IFDIR | 0o755, b""
    yield from _tree(root, root, leave_out)
    yield INIT_PATH.removeprefix("/"), _MODE_LINK, os.fsencode(init)
    folder = MODULES_PATH.removeprefix("/")
    yield folder, stat.S_IFDIR | 0o755, b""
    for module in modules:
        yield f"{folder}/{module.name}", stat.S_IFREG | 0o644, module.read_bytes()


def _tree(
    root: Path, directory: Path, leave_out: frozenset[str]
) -> Iterator[tuple[str, int, bytes]]:
    for path in sorted(directory.iterdir()):
        name = str(path.relative_to(root))
        if name in leave_out:
            continue
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield name, mode, os.fsencode(path.readlink())
        elif stat.S_ISDIR(mode):
            yield name, mode, b""
            yield from _tree(root, path, leave_out)
        elif stat.S_ISREG(mode):
            yield name, mode, path.read_bytes()


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
