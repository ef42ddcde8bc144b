"""What a session knows about one sandbox of its own, and what its driver says about it."""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seatrial import network
from seatrial.drivers.base import CHANNEL_FD, Capabilities, SandboxSpec
from seatrial.errors import DriverError, EnvironmentTrouble
from seatrial.launch import Isolation
from seatrial.network import Veth
from seatrial.probes.cgroup import Cgroup, CgroupHost, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One planned sandbox and what was made for it."""

    id: str
    token: str
    index: int
    spec: SandboxSpec
    directory: Path
    cgroup: Cgroup | None
    veth: Veth | None
    namespace_fd: int | None
    """Held open where the launcher cannot see the namespace by its name."""

    @property
    def namespace_path(self) -> str | None:
        """The path by which the launcher and its children open the network namespace."""
        if self.veth is None:
            return None
        if self.namespace_fd is not None:
            return f"/proc/{os.getpid()}/fd/{self.namespace_fd}"
        return str(self.veth.namespace_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a sandbox is started; the parts of a start plan that differ between drivers."""

    argv: tuple[str, ...]
    isolation: Isolation | None = None
    network_namespace: str | None = None
    kill_argv: tuple[str, ...] | None = None
    environment: tuple[str, ...] = ()
    channel_path: str | None = None
    """Where the guest calls, when it inherits nothing from the command; else it has CHANNEL_FD."""
    channel_token: str | None = field(default=None, repr=False)
    """What the guest says when it calls by TCP, instead of the path."""
    joins_named_hierarchies: bool = False
    """The runtime makes groups of its own in hierarchies that have no controllers, too."""

    @property
    def channel_fd(self) -> int | None:
        """The descriptor on which the guest finds its channel; None: it calls."""
        calls = self.channel_path is not None or self.channel_token is not None
        return None if calls else CHANNEL_FD


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenProcess:
    """A live process of a sandbox, as roles are told from."""

    pid: int
    name: str
    first_word: str
    group: str
    """The group below the sandbox's outer group; "" is the outer group itself."""


def limits_of(spec: SandboxSpec, capabilities: Capabilities) -> Limits:
    """Give what the kernel is to enforce on everything that belongs to a sandbox."""
    asked, extra = spec.memory_limit_bytes, capabilities.limit_overhead_bytes
    return Limits(memory_bytes=asked and asked + extra, cpu_count=spec.cpu_limit)


def join_files(instance: Instance, command: Command) -> tuple[str, ...]:
    """Give the files by which a starting process becomes a member of its sandbox's groups."""
    group = instance.cgroup
    if group is None:
        return ()
    files = list(group.join_files)
    if command.joins_named_hierarchies and group.host.joined:
        files += [
            one.base / group.relative / "cgroup.procs"
            for one in group.host.hierarchies
            if one.version == 2 or all(name.startswith("name=") for name in one.controllers)  # noqa: PLR2004 - cgroup version
        ]
    return tuple(str(path) for path in files)


@contextlib.contextmanager
def files_of(driver: str, place: Path) -> Iterator[None]:
    """Turn the system's refusal to make a file of a sandbox into an error that says where.

    Raises:
        EnvironmentTrouble: the body raised an OSError; the code is ``sandbox-`` and its name.
    """
    try:
        yield
    except OSError as error:
        slug = errno.errorcode.get(error.errno or 0, "EIO").lower()
        raise EnvironmentTrouble(
            f"{driver}: cannot make the files of a sandbox in {place}: {error.strerror or error}",
            hint="free some space there, or set XDG_RUNTIME_DIR to a directory of yours",
            code=f"sandbox-{slug}",
        ) from error


def make_group(host: CgroupHost, path: str, *, limits: Limits, driver: str) -> Cgroup:
    """Make a sandbox's outer group.

    Raises:
        DriverError: the kernel refused it.
    """
    try:
        return host.create(path, limits=limits)
    except OSError as error:
        message = f"{driver}: cannot make the control group of {path}: {error}"
        raise DriverError(message, hint="see 'seatrial doctor'") from error


def remove_network(instance: Instance) -> None:
    """Remove a sandbox's namespace and pair."""
    if instance.namespace_fd is not None:
        os.close(instance.namespace_fd)
    if instance.veth is None:
        return
    # What cannot be removed is found again by name, in the audit.
    with contextlib.suppress(EnvironmentTrouble):
        network.remove_veth(
            namespace=instance.veth.namespace, host_interface=instance.veth.host_interface
        )
