"""The state of a run on this machine: one directory, its owner, and the sweep of dead owners.

The directory holds ``owner.json`` (process id, start time and boot id) from before anything else is
made until after everything else is gone. ``sweep`` removes what belongs to a run only when that
process is dead; a directory without a readable owner is never touched. Groups whose directory is
gone, or is where another environment had it, are told by their own mark (``cgroup_hold``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import network
from seatrial.drivers.base import state_root
from seatrial.errors import DriverError, EnvironmentTrouble
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost
from seatrial.probes.cgroup_hold import Hold, abandoned, hold, remove_abandoned
from seatrial.probes.killing import kill_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OWNER_FILE: Final = "owner.json"
#: Every process of a sandbox that the runtime does not strip of it has this in its environment.
RUN_VARIABLE: Final = "SEATRIAL_RUN"
SANDBOX_VARIABLE: Final = "SEATRIAL_SANDBOX"
RUN_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,63}")
#: What ``new_run_id`` gives, with any prefix: only groups of such names are taken for a run's.
MADE_ID_PATTERN: Final = re.compile(r"([a-z]+-)*[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}")
KILL_TIMEOUT_NS: Final = 2_000_000_000
SESSIONS_MAX: Final = 0xFFF
MOUNTINFO: Final = Path("/proc/self/mountinfo")
SHIM_SOCKETS: Final = Path("/run/containerd/s")
UNIX_SOCKETS: Final = Path("/proc/net/unix")
#: Where systemd-nspawn has an empty directory for each machine; a killed one leaves it.
NSPAWN_MACHINES: Final = Path("/run/systemd/nspawn/propagate")
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that answers for a run."""

    run_id: str
    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def current(cls, run_id: str) -> Owner:
        """Give this process as the owner of a run."""
        pid = os.getpid()
        ticks = leaks.start_ticks(pid)
        return cls(run_id=run_id, pid=pid, start_ticks=ticks or 0, boot_id=_boot_id())

    @classmethod
    def read(cls, directory: Path) -> Owner | None:
        """Read a run directory's owner; None when there is none to be read."""
        try:
            raw = json.loads((directory / OWNER_FILE).read_text())
            return cls(
                run_id=str(raw["run_id"]),
                pid=int(raw["pid"]),
                start_ticks=int(raw["start_ticks"]),
                boot_id=str(raw["boot_id"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Put the owner into a run directory, whole or not at all."""
        text = json.dumps(
            {
                "run_id": self.run_id,
                "pid": self.pid,
                "start_ticks": self.start_ticks,
                "boot_id": self.boot_id,
            }
        )
        draft = directory / f"{OWNER_FILE}.{self.pid}"
        draft.write_text(text)
        draft.replace(directory / OWNER_FILE)

    @property
    def is_alive(self) -> bool:
        """Whether that very process still runs, and not one that got its number later."""
        return (
            self.boot_id == _boot_id()
            and leaks.is_alive(self.pid)
            and leaks.start_ticks(self.pid) == self.start_ticks
        )


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def short_id(run_id: str) -> str:
    """Give the last four letters or digits of a run's id, which go into short kernel names."""
    return re.sub(r"[^A-Za-z0-9]", "", run_id)[-4:]


def sandbox_prefix(run_id: str) -> str:
    """Give what the names of all sandboxes and network namespaces of a run begin with."""
    return f"st-{short_id(run_id)}-"


def interface_prefix(run_id: str) -> str:
    """Give what the names of all host interfaces of a run begin with."""
    return f"stv{short_id(run_id)}"


# --- the run that this process owns --------------------------------------------------------------


class RunState:
    """The directory of a run that this process owns, shared by its sessions."""

    _live: Final[dict[Path, RunState]] = {}
    _lock: Final = threading.Lock()

    def __init__(self, run_id: str, directory: Path) -> None:
        """Keep names only; ``acquire`` makes the directory."""
        self.run_id = run_id
        self.directory = directory
        self._users = 0
        self._hold: Hold | None = None
        self._numbers: set[int] = set()

    @classmethod
    def acquire(cls, run_id: str, directory: Path) -> RunState:
        """Become the owner of a run's directory, or join the sessions that already use it.

        Raises:
            DriverError: the id is no safe name, or another live process owns the run.
            EnvironmentTrouble: the directory cannot be made.
        """
        if not RUN_ID_PATTERN.fullmatch(run_id):
            message = f"run id {run_id!r} is no safe name: expected {RUN_ID_PATTERN.pattern}"
            raise DriverError(message)
        with cls._lock:
            state = cls._live.get(directory)
            if state is None:
                state = cls(run_id, directory)
                state._take()
                cls._live[directory] = state
            state._users += 1
            return state

    def _take(self) -> None:
        owner = Owner.read(self.directory)
        if owner is not None and owner.is_alive and owner.pid != os.getpid():
            message = f"run {self.run_id} belongs to process {owner.pid}, which is still running"
            raise DriverError(message, hint="choose another run id, or end that process")
        if owner is not None:
            remove_run(owner, self.directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            Owner.current(self.run_id).write(self.directory)
        except OSError as error:
            message = f"cannot make the state directory {self.directory}: {error.strerror}"
            hint = "set XDG_RUNTIME_DIR to a directory of yours"
            raise EnvironmentTrouble(message, hint=hint) from error
        self._hold = hold(CgroupHost.detect().group(self.run_id))

    def next_session(self) -> str:
        """Give the lowest free session number as three hex digits; it is taken until given back.

        Raises:
            DriverError: all numbers are taken.
        """
        with self._lock:
            for number in range(1, SESSIONS_MAX + 1):
                if number not in self._numbers:
                    self._numbers.add(number)
                    return f"{number:03x}"
        message = (
            f"run {self.run_id} has {SESSIONS_MAX} sessions that are open or left things behind"
        )
        raise DriverError(message, hint="close sessions, or start another run")

    def end_session(self, number: str) -> None:
        """Give back the number of a session of which nothing is left, so that no name meets it."""
        with self._lock:
            self._numbers.discard(int(number, 16))

    def release(self) -> None:
        """Leave the run; the last to leave removes its directory."""
        with self._lock:
            self._users -= 1
            if self._users > 0:
                return
            self._live.pop(self.directory, None)
            is_ours = Owner.read(self.directory) == Owner.current(self.run_id)
            if is_ours:
                remove_run_groups(self.run_id)
            if self._hold is not None:
                self._hold.close()
                self._hold = None
            if is_ours:
                remove_tree(self.directory)
                with contextlib.suppress(OSError):
                    self.directory.parent.rmdir()
            else:  # somebody removed the directory, or has taken the run over and holds its groups
                remove_abandoned(CgroupHost.detect(), lambda name: name == self.run_id)
                remove_top_groups()


# --- sweeping ------------------------------------------------------------------------------------


def sweep(root: Path | None = None) -> list[str]:
    """Remove what runs of dead owners left, and give what was removed, one line each.

    Raises:
        EnvironmentTrouble: the state directory cannot be read.
    """
    base = state_root() if root is None else root
    removed = _sweep_directories(base) if base.is_dir() else []
    host = CgroupHost.detect()
    groups = remove_abandoned(host, lambda name: _is_dead(base, name))
    if not groups:
        return removed
    removed += [f"cgroup {path}" for path in groups]
    stayed = {
        short_id(path.name) for top in host.group("").directories() for path in top.glob("*/")
    }
    for run_id in sorted({path.name for path in groups}):
        if short_id(run_id) not in stayed | alive_short_ids(base):
            removed += _remove_names(run_id)
    remove_top_groups()
    return removed


def alive_short_ids(base: Path) -> set[str]:
    """Give the short names of the runs that are under way."""
    entries = base.iterdir() if base.is_dir() else ()
    owners = [Owner.read(entry) for entry in entries]
    return {short_id(one.run_id) for one in owners if one is not None and one.is_alive}


def abandoned_groups(base: Path) -> tuple[str, ...]:
    """Give the runs without a directory of which there are still groups."""
    host = CgroupHost.detect()
    return abandoned(host, lambda name: _is_dead(base, name) and Owner.read(base / name) is None)


def _is_dead(base: Path, name: str) -> bool:
    """Whether a group's name is a run's of which no directory here tells otherwise."""
    owner = Owner.read(base / name)
    return MADE_ID_PATTERN.fullmatch(name) is not None and (owner is None or not owner.is_alive)


def _sweep_directories(base: Path) -> list[str]:
    try:
        directories = sorted(entry for entry in base.iterdir() if entry.is_dir())
    except OSError as error:
        raise EnvironmentTrouble(f"cannot read {base}: {error.strerror}") from error
    alive = alive_short_ids(base)
    removed: list[str] = []
    for directory, owner in [(entry, Owner.read(entry)) for entry in directories]:
        if owner is None or owner.is_alive or not is_own_directory(directory, owner):
            continue
        # Short kernel names hold four digits of the id only: never take a live run's by chance.
        keeps_names = short_id(owner.run_id) in alive
        removed += remove_run(owner, directory, keep_short_names=keeps_names)
    with contextlib.suppress(OSError):
        base.rmdir()
    return removed


def is_own_directory(directory: Path, owner: Owner) -> bool:
    """Whether a directory is called as the run that its file of the owner names."""
    return owner.run_id == directory.name and bool(RUN_ID_PATTERN.fullmatch(owner.run_id))


def remove_run(owner: Owner, directory: Path, *, keep_short_names: bool = False) -> list[str]:
    """Remove everything that carries a dead run's label; give what was removed.

    The directory goes last, so that a sweep which was itself killed can be repeated.
    """
    run_id = owner.run_id
    held = held_shim_sockets(CgroupHost.detect().group(run_id).members())
    removed = [str(leak) for leak in _kill_processes(run_id)]
    removed += [f"cgroup {path}" for path in remove_run_groups(run_id)]
    if not keep_short_names:
        removed += _remove_names(run_id)
    removed += [f"socket {path}" for path in remove_shim_sockets(directory, held)]
    removed += [str(leak) for leak in remove_mounts(directory)]
    remove_tree(directory)
    removed.append(f"state {directory}")
    return removed


def _kill_processes(run_id: str) -> tuple[leaks.Leak, ...]:
    group = CgroupHost.detect().group(run_id)

    def labelled() -> set[int]:
        marks = leaks.processes_with(RUN_VARIABLE)
        return {pid for pid, value in marks.items() if value == run_id} - {os.getpid()}

    found = leaks.process_leaks(set(group.members()) | labelled())
    group.kill(timeout_ns=KILL_TIMEOUT_NS)
    kill_until_gone(labelled, timeout_ns=KILL_TIMEOUT_NS)
    return found


def remove_run_groups(run_id: str) -> tuple[Path, ...]:
    """Remove the groups of a run, and our top group when no other run uses it."""
    host = CgroupHost.detect()
    group = host.group(run_id)
    before = group.directories()
    stayed = set(group.remove(timeout_ns=KILL_TIMEOUT_NS))
    remove_top_groups()
    return tuple(path for path in before if path not in stayed)


def remove_top_groups() -> None:
    """Remove our top group wherever no run uses it."""
    for place in CgroupHost.detect().group("").directories():
        with contextlib.suppress(OSError):
            place.rmdir()


def names_of(run_id: str) -> list[str]:
    """Give what ``_remove_names`` would remove."""
    namespaces = sorted(leak.name for leak in leaks.namespace_leaks(sandbox_prefix(run_id)))
    interfaces = sorted(leak.name for leak in leaks.interface_leaks(interface_prefix(run_id)))
    machines = sorted(NSPAWN_MACHINES.glob(f"{sandbox_prefix(run_id)}*"))
    return [
        *(f"interface {name}" for name in interfaces),
        *(f"network namespace {name}" for name in namespaces),
        *(f"nspawn machine {path.name}" for path in machines),
    ]


def _remove_names(run_id: str) -> Iterator[str]:
    namespaces = {leak.name for leak in leaks.namespace_leaks(sandbox_prefix(run_id))}
    interfaces = {leak.name for leak in leaks.interface_leaks(interface_prefix(run_id))}
    for name in sorted(interfaces):
        network.remove_interface(name)
        yield f"interface {name}"
    for name in sorted(namespaces):
        network.remove_namespace(name)
        yield f"network namespace {name}"
    for path in sorted(NSPAWN_MACHINES.glob(f"{sandbox_prefix(run_id)}*")):
        with contextlib.suppress(OSError):
            path.rmdir()
            yield f"nspawn machine {path.name}"


def remove_mounts(directory: Path) -> tuple[leaks.Leak, ...]:
    """Detach the mounts at and below a directory; give those that were."""
    found = leaks.mount_leaks(directory, mountinfo=MOUNTINFO.read_text())
    return tuple(leak for leak in found if network.unmount(Path(leak.name)))


def shim_sockets(directory: Path) -> tuple[Path, ...]:
    """Give the sockets of containerd's shims whose state is below a directory."""
    found: dict[Path, None] = {}
    tasks = directory.glob("*/state/io.containerd.runtime.v2.task/*/*")
    for file in (task / name for task in tasks for name in ("address", "bootstrap.json")):
        with contextlib.suppress(OSError):
            for text in re.findall(r'unix://([^"\s]+)', file.read_text()):
                path = Path(text)
                if path.parent == SHIM_SOCKETS and path.is_socket():
                    found[path] = None
    return tuple(found)


def held_shim_sockets(pids: Iterable[int]) -> tuple[Path, ...]:
    """Give the sockets of containerd's shims that these processes serve.

    A daemon that gave up waiting for a shim's start has forgotten the shim, and has no state of it.
    """
    held: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            held.update(str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir())
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for line in UNIX_SOCKETS.read_text().splitlines()[1:]:
            # Seven fields of numbers, the last of them the inode; the path if it has one.
            fields = line.split(maxsplit=7)
            path = Path(fields[-1])
            if path.parent == SHIM_SOCKETS and f"socket:[{fields[6]}]" in held:
                found.append(path)
    return tuple(dict.fromkeys(found))


def remove_shim_sockets(directory: Path, held: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Remove the sockets of containerd's shims whose state is below a directory; give those.

    ``held`` are those that shims served which are dead by now.

    containerd has one place for the sockets of all its instances (/run/containerd/s, by a digest of
    the instance's address), and beside each shim's state a file with the socket's address: plain,
    or since 1.7 in a JSON object.
    """
    removed: list[Path] = []
    for path in dict.fromkeys((*shim_sockets(directory), *held)):
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
    for place in (SHIM_SOCKETS, SHIM_SOCKETS.parent):
        with contextlib.suppress(OSError):
            place.rmdir()
    return tuple(removed)


def remove_tree(directory: Path) -> None:
    """Remove a directory, unless a mount that could not be detached is in it."""
    # What is mounted must not have its contents removed through the mount.
    if not leaks.mount_leaks(directory, mountinfo=MOUNTINFO.read_text()):
        shutil.rmtree(directory, ignore_errors=True)
