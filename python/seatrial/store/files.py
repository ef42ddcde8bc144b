"""Writing so that a reader, and a machine that loses power, sees all of a file or nothing of it."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from seatrial.errors import StoreError

_HINTS: Final[Mapping[int, str]] = {
    errno.ENOSPC: "free some space, or choose another place with --out",
    errno.EDQUOT: "your disk quota is used up; choose another place with --out",
    errno.EACCES: "choose a directory that you may write to with --out",
    errno.EPERM: "choose a directory that you may write to with --out",
    errno.EROFS: "the file system is read-only; choose another place with --out",
    errno.ENOTDIR: "a part of the path is a file; choose another place with --out",
    errno.ENAMETOOLONG: "choose a shorter path with --out",
}


@contextlib.contextmanager
def translated(action: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors into a ``StoreError`` that says what was being done."""
    try:
        yield
    except OSError as error:
        raise store_error(action, path, error) from error


def store_error(action: str, path: Path, error: OSError) -> StoreError:
    """Make the error for a failed file operation, with a hint where there is one."""
    number = error.errno or _number_in(str(error))
    slug = errno.errorcode.get(number, "EIO").lower()
    reason = error.strerror or str(error)
    return StoreError(
        f"cannot {action} {path}: {reason}", hint=_HINTS.get(number), code=f"store-{slug}"
    )


def _number_in(text: str) -> int:
    """Find the system's number in an error that a library in Rust has put into words."""
    found = re.search(r"\(os error (\d+)\)", text)
    return 0 if found is None else int(found[1])


def sync_dir(path: Path) -> None:
    """Make the names in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's content survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> None:
    """Write a new file and make it durable; its directory is the caller's to sync."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_replacing(path: Path, text: str) -> None:
    """Put a file in place as a whole: readers see the old text or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        write_synced(temporary, text)
        temporary.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)
