"""Control groups: one outer group a sandbox, in cgroup v1, v2 and hybrid, for books and limits.

The *outer* group of a sandbox holds whatever the runtime starts on its behalf, so that the CPU of
the runtime's own command is charged there too; a runtime which makes a group of its own nests it
below as ``box``. Reading the outer group therefore gives runtime and payload together, and v1 and
v2 both keep the CPU time of a nested group after it was removed.

On v1 the group is made in every mounted hierarchy (so that a runtime only has to make ``box``) and
joined in those that matter here. On v2 a group with controllers for its children may hold no
process itself, so the launcher's child joins the leaf ``runtime`` instead.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.probes.cgroup_books import (
    CpuReading,
    MemoryReading,
    read_int,
    read_v1_cpu,
    read_v1_memory,
    read_v2_cpu,
    read_v2_memory,
    read_words,
)
from seatrial.probes.cgroup_files import (
    CgroupError,
    children_count,
    enable_controllers,
    hand_cpuset_down,
    make_dirs,
    refusals,
    remove_dir,
    walk,
)
from seatrial.probes.killing import POLL_QUANTUM_NS, kill_until_gone

if TYPE_CHECKING:
    from collections.abc import Mapping

LABEL: Final = "seatrial"
BOX: Final = "box"
LEAF: Final = "runtime"
#: Controllers whose v1 hierarchies a sandbox joins: its books (cpuacct, memory), its limits (cpu,
#: memory), and two that make finding and stopping every member certain.
JOINED_CONTROLLERS: Final = ("memory", "cpu", "cpuacct", "pids", "freezer")
CPU_PERIOD_US: Final = 100_000
REMOVE_TIMEOUT_NS: Final = 2_000_000_000


class CgroupMode(StrEnum):
    """Which kind of hierarchy keeps our books."""

    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted hierarchy; ``base`` is the directory below which we may make groups."""

    version: int
    controllers: frozenset[str]
    mount: Path
    base: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a group may use; None: as much as there is."""

    memory_bytes: int | None = None
    cpu_count: float | None = None


# --- finding out what is mounted ---------------------------------------------------------------


def parse_hierarchies(mountinfo: str, own_cgroups: str, *, is_root: bool) -> tuple[Hierarchy, ...]:
    """Give the hierarchies that /proc/self/mountinfo and /proc/self/cgroup describe; pure.

    Root makes its groups at the top of each hierarchy, anybody else below the own group, which is
    the only place that can have been delegated.
    """
    own = _parse_own_cgroups(own_cgroups)
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        front, _, back = line.partition(" - ")
        fields, tail = front.split(), back.split()
        if len(fields) < 5 or len(tail) < 3 or tail[0] not in {"cgroup", "cgroup2"}:  # noqa: PLR2004 - proc(5): five fields before the options, three after the dash
            continue
        mount = Path(_unescape(fields[4]))
        version = 2 if tail[0] == "cgroup2" else 1
        names = frozenset() if version == 2 else _v1_controllers(tail[2])  # noqa: PLR2004 - cgroup version
        path = "/" if is_root else _own_path(own, names, mount_root=_unescape(fields[3]))
        base = mount / path.lstrip("/")
        found[mount] = Hierarchy(version=version, controllers=names, mount=mount, base=base)
    return tuple(found.values())


def _v1_controllers(super_options: str) -> frozenset[str]:
    plain = {"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "all", "none"}
    return frozenset(
        option
        for option in super_options.split(",")
        if option not in plain and not option.startswith("release_agent=")
    )


def _parse_own_cgroups(text: str) -> dict[str, str]:
    """Map each controller (v2: "") to the path of our own group."""
    own: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            own[name] = path
    return own


def _own_path(own: Mapping[str, str], names: frozenset[str], *, mount_root: str) -> str:
    path = next((own[name] for name in sorted(names) if name in own), own.get("", "/"))
    if mount_root != "/" and path.startswith(mount_root):
        path = path[len(mount_root) :]
    return path or "/"


def _unescape(text: str) -> str:
    # proc(5): space, tab, newline and backslash appear as octal escapes.
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


# --- the host's side ---------------------------------------------------------------------------


class CgroupHost:
    """What this machine offers, and the maker of groups.

    Invariant: groups are made and removed only below ``<base>/seatrial``.
    """

    def __init__(self, hierarchies: tuple[Hierarchy, ...]) -> None:
        """Keep what is mounted; ``detect`` finds it."""
        self.hierarchies = hierarchies
        self.v1 = tuple(one for one in hierarchies if one.version == 1)
        self.v2 = next((one for one in hierarchies if one.version == 2), None)  # noqa: PLR2004 - cgroup version
        self.joined = tuple(
            one for one in self.v1 if not one.controllers.isdisjoint(JOINED_CONTROLLERS)
        )

    @classmethod
    def detect(cls, *, proc: Path = Path("/proc"), is_root: bool | None = None) -> CgroupHost:
        """Read what is mounted; a machine without cgroups gives an empty host."""
        root = os.geteuid() == 0 if is_root is None else is_root
        try:
            mountinfo = (proc / "self/mountinfo").read_text()
            own = (proc / "self/cgroup").read_text()
        except OSError:
            return cls(())
        return cls(parse_hierarchies(mountinfo, own, is_root=root))

    @property
    def mode(self) -> CgroupMode:
        """Which hierarchy keeps our books (hybrid: v1 does, a v2 mount stands beside it)."""
        if self.joined:
            return CgroupMode.V1 if self.v2 is None else CgroupMode.HYBRID
        return CgroupMode.NONE if self.v2 is None else CgroupMode.V2

    @property
    def book_hierarchies(self) -> tuple[Hierarchy, ...]:
        """The hierarchies whose groups a sandbox joins."""
        if self.joined:
            return self.joined
        return () if self.v2 is None else (self.v2,)

    def problems(self) -> tuple[str, ...]:
        """Say what keeps us from booking CPU and memory or setting limits; empty: nothing."""
        books = self.book_hierarchies
        if not books:
            return ("no cgroup hierarchy is mounted",)
        locked = [str(one.base) for one in books if not os.access(one.base, os.W_OK | os.X_OK)]
        if locked:
            return (f"no write access to {', '.join(locked)} (not delegated to this user)",)
        have = self._controllers()
        wanted = ("cpu", "cpuacct", "memory") if self.joined else ("cpu", "memory")
        missing = [name for name in wanted if name not in have]
        if missing:
            return (f"controllers not available: {', '.join(missing)}",)
        return () if self.joined or self.v2 is None else refusals(self.v2.base, wanted)

    @property
    def is_writable(self) -> bool:
        """True when a sandbox can have a group of its own at all."""
        books = self.book_hierarchies
        return bool(books) and all(os.access(one.base, os.W_OK | os.X_OK) for one in books)

    def _controllers(self) -> frozenset[str]:
        if self.joined:
            return frozenset().union(*(one.controllers for one in self.joined))
        if self.v2 is None:
            return frozenset()
        return frozenset(read_words(self.v2.base / "cgroup.controllers"))

    def create(self, path: str, *, limits: Limits | None = None) -> Cgroup:
        """Make the outer group ``seatrial/<path>`` with its limits.

        Raises:
            CgroupError: a hierarchy that matters refused; nothing is left behind.
        """
        relative = f"{LABEL}/{path}"
        group = Cgroup(self, relative)
        try:
            if self.joined:
                self._create_v1(relative)
            elif self.v2 is not None:
                self._create_v2(self.v2, relative)
            else:
                raise CgroupError(errno.ENODEV, "no cgroup hierarchy is mounted", relative)
            _apply_limits(group, limits or Limits())
        except OSError:
            group.remove(timeout_ns=0)
            raise
        return group

    def _create_v1(self, relative: str) -> None:
        matters = set(self.joined)
        for one in self.hierarchies:
            try:
                make_dirs(one.base / relative)
            except OSError:
                # The other hierarchies are made only to spare runtimes the work.
                if one in matters:
                    raise

    def _create_v2(self, v2: Hierarchy, relative: str) -> None:
        step = v2.base
        for part in Path(relative).parts:
            enable_controllers(step)
            step /= part
            make_dirs(step)
        enable_controllers(step)
        make_dirs(step / LEAF)

    def group(self, path: str) -> Cgroup:
        """Give a handle on ``seatrial/<path>`` without making anything."""
        return Cgroup(self, f"{LABEL}/{path}" if path else LABEL)


def _apply_limits(group: Cgroup, limits: Limits) -> None:
    host = group.host
    if limits.memory_bytes is not None:
        name = "memory.limit_in_bytes" if host.joined else "memory.max"
        group.write("memory", name, str(limits.memory_bytes))
    if limits.cpu_count is not None:
        quota = int(limits.cpu_count * CPU_PERIOD_US)
        if host.joined:
            group.write("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US))
            group.write("cpu", "cpu.cfs_quota_us", str(quota))
        else:
            group.write("cpu", "cpu.max", f"{quota} {CPU_PERIOD_US}")


# --- one sandbox's group -----------------------------------------------------------------------


class Cgroup:
    """One group in all hierarchies at once; reading a vanished group gives None, never zero."""

    def __init__(self, host: CgroupHost, relative: str) -> None:
        """Name the group; making it is ``CgroupHost.create``'s work.

        Raises:
            ValueError: the name leads out of our part of the hierarchy.
        """
        parts = relative.split("/")
        if parts[0] != LABEL or not {"", ".", ".."}.isdisjoint(parts):
            # What is killed and removed goes by this name: it must never be somebody else's.
            raise ValueError(f"{relative!r} is no group below {LABEL!r}")
        self.host = host
        self.relative = relative

    @property
    def box_path(self) -> str:
        """The path a runtime gets for the group it makes itself (OCI ``cgroupsPath``)."""
        return f"{self.parent_path}/{BOX}"

    @property
    def parent_path(self) -> str:
        """The path an engine gets as the parent of the groups it makes."""
        v2_base = self.host.v2.base if not self.host.joined and self.host.v2 else None
        if v2_base is not None and self.host.v2 is not None and v2_base != self.host.v2.mount:
            return f"/{v2_base.relative_to(self.host.v2.mount)}/{self.relative}"
        return f"/{self.relative}"

    @property
    def join_files(self) -> tuple[Path, ...]:
        """The files into which a starting process writes "0" to become a member."""
        if self.host.joined:
            return tuple(one.base / self.relative / "cgroup.procs" for one in self.host.joined)
        if self.host.v2 is None:
            return ()
        return (self.host.v2.base / self.relative / LEAF / "cgroup.procs",)

    def directories(self) -> tuple[Path, ...]:
        """The group's directory in every hierarchy where it exists now."""
        places = (one.base / self.relative for one in self.host.hierarchies)
        return tuple(place for place in places if place.is_dir())

    def box_directories(self) -> tuple[Path, ...]:
        """The directories of the runtime's own group that exist now."""
        places = (one.base / self.relative / BOX for one in self.host.hierarchies)
        return tuple(place for place in places if place.is_dir())

    def make_box(self, limits: Limits) -> None:
        """Make the runtime's own group with its limits, for a runtime that wants it ready-made.

        Raises:
            CgroupError: a hierarchy that matters refused.
        """
        if self.host.joined:
            self.host.create(f"{self.relative.removeprefix(f'{LABEL}/')}/{BOX}", limits=limits)
            return
        box = Cgroup(self.host, f"{self.relative}/{BOX}")
        for one in self.host.book_hierarchies:
            make_dirs(one.base / box.relative)
        _apply_limits(box, limits)

    def directory(self, controller: str) -> Path | None:
        """Where a controller's files of this group are, or None when it is not mounted."""
        for one in self.host.joined:
            if controller in one.controllers:
                return one.base / self.relative
        if not self.host.joined and self.host.v2 is not None:
            return self.host.v2.base / self.relative
        return None

    def write(self, controller: str, name: str, value: str) -> None:
        """Set a control file.

        Raises:
            CgroupError: the controller is missing or refuses the value.
        """
        place = self.directory(controller)
        if place is None or not (place / name).exists():
            raise CgroupError(errno.ENOENT, f"no {name}: is the {controller} controller on?")
        try:
            (place / name).write_text(value)
        except OSError as error:
            text = f"{place / name} refuses {value!r}: {error.strerror}"
            raise CgroupError(error.errno or 0, text) from error

    def memory_limit_bytes(self) -> int | None:
        """The tightest memory limit set on this group or one below it; None: none is set."""
        place = self.directory("memory")
        if place is None:
            return None
        name = "memory.limit_in_bytes" if self.host.joined else "memory.max"
        found = [read_int(one / name) for one in walk(place)]
        # v1 says "unlimited" as the largest page-aligned number, v2 as the word "max".
        return min((one for one in found if one is not None and one < 1 << 62), default=None)

    def read_cpu(self) -> CpuReading | None:
        """Read the CPU time charged so far."""
        if self.host.joined:
            place = self.directory("cpuacct")
            return None if place is None else read_v1_cpu(place)
        place = self.directory("cpu")
        return None if place is None else read_v2_cpu(place)

    def read_memory(self) -> MemoryReading | None:
        """Read the memory charged now."""
        place = self.directory("memory")
        if place is None:
            return None
        return read_v1_memory(place) if self.host.joined else read_v2_memory(place)

    def remove_box(self) -> None:
        """Remove the runtime's own group as far as nothing is in it, for who never does."""
        for place in self.box_directories():
            for directory in reversed(list(walk(place))):
                remove_dir(directory)

    def make_child(self, name: str) -> None:
        """Make a group below this one wherever this one is, for a runtime that never removes it."""
        for one in self.host.hierarchies:
            place = one.base / self.relative
            if place.is_dir():
                make_dirs(place / name)
                if "cpuset" in one.controllers:
                    hand_cpuset_down(one.base, f"{self.relative}/{name}")

    def has_remains(self, *, kept_count: int = 0) -> bool:
        """Tell whether a process or a group of a runtime is left; a cheap look, made often.

        ``kept_count`` groups below this one were made with ``make_child`` and are no remains.

        Processes are looked for where memory is booked (or else in the first hierarchy joined), and
        once none is there also in the other hierarchies joined; groups of runtimes everywhere,
        since runtimes remove them in one hierarchy after another.
        """
        books = self.host.book_hierarchies
        first = next((one for one in books if "memory" in one.controllers), books[0])
        outer = f"{first.base}/{self.relative}"
        if read_words(Path(outer, "cgroup.procs")) or read_words(Path(outer, LEAF, "cgroup.procs")):
            return True
        own_count = kept_count + (0 if self.host.joined else 1)
        places = (f"{one.base}/{self.relative}" for one in self.host.hierarchies)
        if any(children_count(place) > own_count for place in places):
            return True
        others = (one for one in books if one is not first)
        return any(read_words(one.base / self.relative / "cgroup.procs") for one in others)

    def members(self) -> dict[int, str]:
        """Map the members' pids to their group below this one ("" is the outer group itself)."""
        found: dict[int, str] = {}
        places = [one.base / self.relative for one in self.host.book_hierarchies]
        # A process that left one hierarchy is still found in another; deeper names win.
        for place in places:
            for directory in walk(place):
                below = str(directory.relative_to(place))
                for pid in read_words(directory / "cgroup.procs"):
                    number = int(pid)
                    if number == 0:
                        # It lives in a pid namespace beside ours, so we have no number for it.
                        continue
                    if below != "." or number not in found:
                        found[number] = "" if below in {".", LEAF} else below
        return found

    def kill(self, *, timeout_ns: int = REMOVE_TIMEOUT_NS) -> tuple[int, ...]:
        """Kill every member, new ones too, until none is left; give the pids that will not go.

        Raises:
            ValueError: this is the group of all runs.
        """
        if self.relative == LABEL:
            raise ValueError(f"{LABEL!r} holds the sandboxes of every run, live ones too")
        return kill_until_gone(self.members, timeout_ns=timeout_ns)

    def remove(self, *, timeout_ns: int = REMOVE_TIMEOUT_NS) -> tuple[Path, ...]:
        """Remove the group everywhere, deepest first; give the directories that stayed."""
        deadline = time.monotonic_ns() + timeout_ns
        while True:
            stayed = tuple(
                directory
                for place in self.directories()
                for directory in reversed(list(walk(place)))
                if not remove_dir(directory)
            )
            if not stayed or time.monotonic_ns() >= deadline:
                return stayed
            time.sleep(POLL_QUANTUM_NS / 1e9)
