"""Whether somebody still answers for a run's group, told by the kernel and not by a file.

Who starts a run *holds* its group: a shared lock (flock) on the group's directory, which the kernel
drops with the process, however that ends. A group that nobody holds and that has no process in it
belongs to nobody any more, also where the run's state directory is gone or was elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.probes.cgroup_books import read_words
from seatrial.probes.cgroup_files import make_dirs, walk
from seatrial.probes.killing import POLL_QUANTUM_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seatrial.probes.cgroup import Cgroup, CgroupHost

#: How long a group may be claimed by who removes it; that takes a few system calls.
CLAIM_TIMEOUT_NS: Final = 1_000_000_000


class Hold:
    """A group that is held until ``close``, or until this process ends."""

    def __init__(self, descriptor: int) -> None:
        """Keep the locked directory open."""
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Let go; a second time does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def hold(group: Cgroup) -> Hold | None:
    """Make a group's directory where its books are, and hold it; several may hold the same one.

    None: groups cannot be made here, or the directory stays locked by somebody else. Then nothing
    keeps ``remove_abandoned`` from the group while no process is in it.
    """
    books = group.host.book_hierarchies
    if not books:
        return None
    place = books[0].base / group.relative
    deadline_ns = time.monotonic_ns() + CLAIM_TIMEOUT_NS
    while True:
        try:
            make_dirs(place)
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # removed between the two
            descriptor = None
        except OSError:  # not delegated to this user, or read-only
            return None
        if descriptor is not None:
            if _lock(descriptor, fcntl.LOCK_SH) and _is_still(place, descriptor):
                return Hold(descriptor)
            os.close(descriptor)
        if time.monotonic_ns() >= deadline_ns:
            return None
        time.sleep(POLL_QUANTUM_NS / 1e9)


def remove_abandoned(host: CgroupHost, is_run: Callable[[str], bool]) -> tuple[Path, ...]:
    """Remove the groups of runs that nobody holds and no process is in; give what was removed.

    ``is_run`` tells by its name whether a group is one of a run: no other is touched.
    """
    removed: list[Path] = []
    for group in _groups(host, is_run):
        with _claimed(group) as places:
            stayed = set(group.remove(timeout_ns=0)) if places else set()
            removed += [place for place in places if place not in stayed]
    return tuple(removed)


def abandoned(host: CgroupHost, is_run: Callable[[str], bool]) -> tuple[str, ...]:
    """Give the names of the groups that ``remove_abandoned`` would remove."""
    found: list[str] = []
    for group in _groups(host, is_run):
        with _claimed(group) as places:
            found += [Path(group.relative).name] if places else []
    return tuple(found)


def _groups(host: CgroupHost, is_run: Callable[[str], bool]) -> list[Cgroup]:
    tops = host.group("").directories()
    names = {entry.name for top in tops for entry in _subdirectories(top)}
    return [host.group(name) for name in sorted(names) if is_run(name)]


@contextlib.contextmanager
def _claimed(group: Cgroup) -> Iterator[tuple[Path, ...]]:
    """Lock a group in every hierarchy; gives no directory when it is held or has a process."""
    places = group.directories()
    with contextlib.ExitStack() as opened:
        for place in places:
            try:
                descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:  # it went meanwhile, or is not ours to read
                yield ()
                return
            opened.callback(os.close, descriptor)
            if not _lock(descriptor, fcntl.LOCK_EX):
                yield ()
                return
        yield () if any(_has_process(place) for place in places) else places


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_still(place: Path, descriptor: int) -> bool:
    """Whether a path still names what was opened: who removes a group may have been faster."""
    try:
        return os.path.samestat(place.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _has_process(place: Path) -> bool:
    # Also "0", which is how a process in another pid namespace is listed.
    return any(read_words(directory / "cgroup.procs") for directory in walk(place))


def _subdirectories(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
