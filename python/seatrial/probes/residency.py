"""How much of a set of files is in the page cache, and how to have it there or not.

What a command to drop caches has done is looked at page by page (mincore), never believed: pages
that a live process maps stay, and so do those that were written to and not yet written back.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")
#: Page cache, and the names and inodes that are looked up on the way to a file (proc(5)).
DROP_ALL: Final = "3"
READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """Pages of some files, and how many of them are in the page cache."""

    pages_count: int
    resident_count: int

    @property
    def ratio(self) -> float | None:
        """Share that is there, 0..1; None: there are no pages."""
        return self.resident_count / self.pages_count if self.pages_count else None


def read_residency(paths: Iterable[Path]) -> Residency:
    """Looks at every page of the files; one that cannot be opened is left out."""
    pages = resident = 0
    for path in paths:
        seen = _pages_of(path)
        pages += len(seen)
        # The lowest bit says it; the others are reserved (mincore(2)).
        resident += sum(byte & 1 for byte in seen)
    return Residency(pages_count=pages, resident_count=resident)


def warm_files(paths: Iterable[Path]) -> None:
    """Reads the files once, so that all their pages are in the cache."""
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb", buffering=0) as stream:
            while stream.read(READ_BYTES):
                pass


def cool_files(paths: Sequence[Path], *, drop: Path = DROP_CACHES) -> bool:
    """Writes back and drops caches of the whole host, and these files' pages by name.

    Returns whether the caches of the host could be dropped; without root only the files' own
    pages go.

    Raises:
        EnvironmentTrouble: a file cannot be opened.
    """
    os.sync()
    is_whole = True
    try:
        drop.write_text(DROP_ALL)
    except OSError:
        is_whole = False
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise EnvironmentTrouble(f"cannot open {path} to drop its pages: {error}") from error
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return is_whole


def _pages_of(path: Path) -> bytes:
    """One byte a page, as the kernel gives it."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == 0:
                return b""
            # Private and writable, so that ctypes takes its address; nothing is written to it.
            mapping = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_COPY)
    except OSError:
        return b""
    with mapping:
        return _mincore(mapping, size)


def _mincore(mapping: mmap.mmap, size: int) -> bytes:
    libc = ctypes.CDLL(None, use_errno=True)
    seen = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    view = (ctypes.c_char * size).from_buffer(mapping)
    try:
        failed = libc.mincore(ctypes.byref(view), ctypes.c_size_t(size), seen)
        number = ctypes.get_errno()
    finally:
        # While a view of it lives a mapping cannot be closed.
        del view
    if failed:
        message = f"mincore of {size} bytes: {os.strerror(number)}"
        raise EnvironmentTrouble(message)
    return bytes(seen)
