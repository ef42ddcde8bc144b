"""Firecracker's jailer: its command line, and the root that it locks a machine's monitor into.

The jailer makes BASE/NAME/ID/root (NAME is the program's after all links), copies the program into
it, makes device files there, takes it as its root in a mount namespace of its own, becomes another
user and executes the copy, in one process. It takes in no other file and removes nothing. So what
the calls of the API name is linked there before the start; a link takes neither room nor time, but
ends at the border of a mount. The base is the sandbox's own directory, and goes with it.

The jailer also empties the environment, by which processes are found where there are no control
groups; so it needs them. It is told of no group, and stays in the one that it was started in.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from seatrial import network
from seatrial.drivers.local import Found, find_program, program_version
from seatrial.drivers.options import OptionError
from seatrial.errors import ConfigError, DriverError, DriverUnavailable
from seatrial.probes.cgroup import CgroupHost

if TYPE_CHECKING:
    from seatrial.model.scalar import Scalar

PROGRAM: Final = "jailer"
PACKAGE_HINT: Final = (
    "put the jailer of the same release of Firecracker on PATH, or leave the option 'jailer' out"
)
VERSION_MARKER: Final = "Jailer v"
#: Switches the option on for what starts without an experiment: the probe, 'seatrial doctor'.
VARIABLE: Final = "SEATRIAL_FIRECRACKER_JAILER"
OPTIONS: Final = ("jailer", "uid", "gid")
#: In a range that neither Debian nor systemd gives to anybody.
UNPRIVILEGED_ID: Final = 61_000
#: The highest number of a user; the next one means none (chown(2)).
ID_MAX: Final = (1 << 32) - 2
#: Of what is shown to a monitor and is not its own.
READABLE_MODE: Final = 0o444


@dataclass(frozen=True, slots=True, kw_only=True)
class JailOptions:
    """As whom the monitors of a session run."""

    uid: int = UNPRIVILEGED_ID
    gid: int = UNPRIVILEGED_ID

    @classmethod
    def take(cls, driver: str, options: dict[str, Scalar]) -> Self | None:
        """Take the jailer's options out of a driver's; None: no jailer is wanted.

        Raises:
            ConfigError: one has no meaning; says what was expected.
        """
        wanted = options.pop("jailer", None)
        if wanted is None:
            wanted = _wanted_by_environment()
        if not isinstance(wanted, bool):
            raise OptionError(f"driver.{driver}.jailer", "expected true or false", value=wanted)
        ids: dict[str, int] = {}
        for key in ("uid", "gid"):
            if key in options:
                ids[key] = _parse_id(f"driver.{driver}.{key}", options.pop(key), is_used=wanted)
        return cls(**ids) if wanted else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Jailer:
    """The jailer that is installed, for one monitor and one user."""

    binary: Path
    version: str
    monitor: Path
    """The program to be locked in, without links: its name becomes a directory's."""
    uid: int
    gid: int

    @classmethod
    def find(cls, options: JailOptions, found: Found) -> Self:
        """Find the jailer for a monitor that was found.

        Raises:
            DriverUnavailable: it is not installed, of another release, or cannot work here.
        """
        binary = find_program(PROGRAM, package=PACKAGE_HINT)
        version = program_version(binary, marker=VERSION_MARKER)
        if "unknown" not in {version, found.version} and version != found.version:
            message = f"{binary} is of release {version}, and Firecracker of {found.version}"
            raise DriverUnavailable(message, hint=PACKAGE_HINT)
        if os.geteuid() != 0:
            raise DriverUnavailable("Firecracker's jailer needs root", hint="run as root")
        if not CgroupHost.detect().is_writable:
            message = "Firecracker's jailer empties the environment, by which processes are found"
            hint = "make control groups writable ('seatrial doctor'), or leave 'jailer' out"
            raise DriverUnavailable(f"{message} where no control group can be made", hint=hint)
        monitor = (found.binary or Path()).resolve()
        ids = {"uid": options.uid, "gid": options.gid}
        return cls(binary=binary, version=version, monitor=monitor, **ids)

    @property
    def flag(self) -> str:
        """What is inside the clock, for a run's record."""
        return f"{self.version}, uid {self.uid}, gid {self.gid}"

    def root(self, base: Path, token: str) -> Path:
        """Give the directory that becomes a monitor's root; pure."""
        return base / self.monitor.name / token / "root"

    def argv(self, base: Path, token: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """Give the command line that starts a monitor with arguments of its own; pure.

        The jailer gives the monitor its ``--id``. Of the second version of control groups, it
        enters a group that it was not told of; so the first one is named, where it enters none.
        """
        return (
            str(self.binary),
            *("--id", token, "--exec-file", str(self.monitor)),
            *("--uid", str(self.uid), "--gid", str(self.gid)),
            *("--chroot-base-dir", str(base), "--cgroup-version", "1"),
            *("--", *arguments),
        )

    def show(self, path: Path, root: Path, *, is_writable: bool = False) -> Path | None:
        """Make a file reachable in a root; None: by a link, else where it was mounted.

        A writable file becomes the monitor's own; another must be one that all may read.
        """
        root.mkdir(parents=True, exist_ok=True)
        target = root / path.name
        if is_writable:
            os.chown(path, self.uid, self.gid)
        try:
            os.link(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            target.touch()
            network.bind(path, target)
            return target
        return None

    def take_out(self, path: Path, root: Path) -> None:
        """Move a file that a monitor wrote out of its root, and let nobody write it again."""
        (root / path.name).rename(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, READABLE_MODE)
        finally:
            os.close(descriptor)


def prepare_ground(directory: Path) -> None:
    """See to it that programs and device files in a directory can be used.

    On the /run of most systems they cannot; then the directory is mounted on itself without that,
    which whoever removes the mounts of a run's directory undoes.

    Raises:
        DriverError: the kernel refused it.
    """
    if not os.statvfs(directory).f_flag & (os.ST_NODEV | os.ST_NOEXEC):
        return
    try:
        network.bind_usable(directory)
    except OSError as error:
        message = f"programs and device files in {directory} cannot be made usable: {error}"
        hint = "name a place without nodev and noexec in XDG_RUNTIME_DIR, or leave 'jailer' out"
        raise DriverError(message, hint=hint) from error


def bring(path: Path, directory: Path) -> Path:
    """Give a file as one in a directory of ours that all may read: a link, or else a copy."""
    target = directory / path.name
    if path.stat().st_mode & stat.S_IROTH:
        try:
            os.link(path, target)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
                raise
        else:
            return target
    shutil.copyfile(path, target)
    target.chmod(READABLE_MODE)
    return target


def _wanted_by_environment() -> bool:
    text = os.environ.get(VARIABLE, "")
    if text not in {"", "0", "1"}:
        raise ConfigError(f"{VARIABLE}={text!r}: expected 1 or 0")
    return text == "1"


def _parse_id(where: str, value: Scalar, *, is_used: bool) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= ID_MAX:
        expected = f"expected a number from 1 to {ID_MAX}, not root's"
        raise OptionError(where, expected, value=value)
    if not is_used:
        expected = "means nothing without jailer = true"
        raise OptionError(where, expected, value=value, needs=("jailer",))
    return value
