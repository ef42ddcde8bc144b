"""Our own lean sandbox: namespaces, a pivoted root and a control group, with no program between.

The launcher's child does it to itself between clone and exec (``Isolation`` is the recipe), so what
a start costs is what the kernel takes for namespaces and mounts. The root is pivoted into once, in
a mount namespace of which each sandbox gets a copy of its own. Without root there is no such
namespace: each sandbox has a user namespace in which the caller is root, and pivots for itself.

``lean-prepared`` gets its empty network namespaces before the clock starts, as every driver gets
those of mode ``veth``; ``lean`` makes them within it. ``lean-pooled`` uses them again, as MITOSIS
does with the namespaces of its lean containers: none is made or destroyed once there are enough.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import __version__
from seatrial.drivers.base import CHANNEL_FD, DATA_PATH, TOOLS_PATH
from seatrial.drivers.empty_networks import EmptyNetworks
from seatrial.drivers.instance import Command, Instance
from seatrial.drivers.local import Found, LocalDriver, found_here
from seatrial.drivers.options import TakesNoOptions
from seatrial.drivers.session import LocalSession
from seatrial.errors import DriverUnavailable
from seatrial.guest.rootfs import GUEST_PATH, build_rootfs
from seatrial.launch import Bind, Isolation
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.base import DriverContext
    from seatrial.launch.plan import Namespace

HOSTNAME: Final = "seatrial"
NAMESPACES: Final[tuple[Namespace, ...]] = ("mount", "pid", "uts", "ipc")
USER_NAMESPACES_MAX: Final = Path("/proc/sys/user/max_user_namespaces")


class Supply(StrEnum):
    """Where an empty network namespace comes from; the value is the driver's name."""

    WITHIN = "lean"
    AHEAD = "lean-prepared"
    POOL = "lean-pooled"


#: What a start finds made besides what every lean start finds made, for the flags of a run.
MADE_AHEAD: Final = {
    Supply.WITHIN: "",
    Supply.AHEAD: ", empty network namespaces",
    Supply.POOL: ", empty network namespaces, used again",
}


class LeanDriver(TakesNoOptions, LocalDriver):
    """Namespaces and a root of its own, made by the launcher."""

    broken_hint = "the error names the step that the kernel refused; namespaces may be forbidden"

    def __init__(self, supply: Supply = Supply.WITHIN) -> None:
        """Say where empty network namespaces come from."""
        self.supply = supply
        self.name = str(supply)

    def find(self) -> Found:
        """Find nothing but the kernel's namespaces."""
        if self.supply is not Supply.WITHIN and os.geteuid() != 0:
            message = (
                "without root, a sandbox's network namespace must be made after its own user's"
            )
            raise DriverUnavailable(message, hint="run as root, or use the driver lean")
        if os.geteuid() != 0 and _user_namespaces_max() == 0:
            message = "this kernel forbids user namespaces, and without root there is no other way"
            raise DriverUnavailable(message, hint="sysctl user.max_user_namespaces=10000, or root")
        return found_here(None, __version__)

    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""
        self.check_options(context.options)
        flags = {
            "namespaces": ",".join(_namespaces(NetworkMode.NONE)),
            "root": "read-only bind, pivot_root, tmpfs /tmp",
            "seccomp": "none",
            "made before the clock": self._made_ahead(),
        }
        return self.make_session(SESSIONS[self.supply], context, flags=flags)

    def _made_ahead(self) -> str:
        """Name what a start finds made, besides what every driver's finds: groups and veths."""
        if os.geteuid() != 0:
            return "nothing"
        once = "the root's mount namespace (once; each start copies it), copies of binds"
        return once + MADE_AHEAD[self.supply]


class LeanSession(LocalSession):
    """Lean sandboxes of one run, all from one read-only root."""

    #: Whether empty network namespaces are made before the release of a start.
    is_prepared = False

    @property
    def guest_path(self) -> str:
        """The guest binary's path in the root."""
        return GUEST_PATH

    def prepare(self) -> None:
        """Make the root that all sandboxes share."""
        self._root = build_rootfs(self.directory / "rootfs", guest=self.guest)

    def network_of(self, instance: Instance) -> str | None:
        """Give the path of the network namespace that a sandbox enters; None: it enters none."""
        return instance.namespace_path

    def command(self, instance: Instance) -> Command:
        """Describe what the child does to itself before it becomes the guest."""
        data, tools = instance.spec.data_dir, instance.spec.tools_dir
        is_root = os.geteuid() == 0
        binds = (
            *((Bind(source=str(data), target=DATA_PATH, read_only=False),) if data else ()),
            *((Bind(source=str(tools), target=TOOLS_PATH),) if tools else ()),
        )
        network = self.network_of(instance)
        namespaces = _namespaces(instance.spec.network, is_entered=network is not None)
        isolation = Isolation(
            namespaces=namespaces,
            root=str(self._root),
            binds=binds,
            proc=True,
            tmpfs=("/tmp",),  # noqa: S108 - a mount point inside the sandbox
            hostname=HOSTNAME,
            uid_map=None if is_root else f"0 {os.geteuid()} 1",
            gid_map=None if is_root else f"0 {os.getegid()} 1",
            read_only_root=True,
            network_ahead=self.is_prepared and "net" in namespaces,
        )
        return Command(
            argv=(GUEST_PATH, "--channel-fd", str(CHANNEL_FD), *instance.spec.role),
            isolation=isolation,
            network_namespace=network,
        )


class PreparedLeanSession(LeanSession):
    """Lean sandboxes whose network namespaces exist before the clock starts."""

    is_prepared = True


class PooledLeanSession(LeanSession):
    """Lean sandboxes whose empty network namespaces are used again, as long as they are as new."""

    def prepare(self) -> None:
        """Begin without any."""
        super().prepare()
        self.networks = EmptyNetworks()

    def network_of(self, instance: Instance) -> str | None:
        """Take an empty network, where that is what the sandbox is to have."""
        if instance.spec.network is not NetworkMode.NONE:
            return super().network_of(instance)
        return self.networks.take(instance.id)

    def forget(self, instance: Instance) -> None:
        """Take the network back; its groups are removed by now, unless something is still there."""
        super().forget(instance)
        self.networks.give_back(instance.id, is_gone=not self._members(instance))

    def close(self) -> None:
        """Let the networks go when their sandboxes are gone."""
        try:
            super().close()
        finally:
            self.networks.close()


SESSIONS: Final[Mapping[Supply, type[LeanSession]]] = {
    Supply.WITHIN: LeanSession,
    Supply.AHEAD: PreparedLeanSession,
    Supply.POOL: PooledLeanSession,
}


def lean() -> LeanDriver:
    """Make the driver whose starts make everything that is a sandbox's own."""
    return LeanDriver()


def lean_prepared() -> LeanDriver:
    """Make the driver whose network namespaces exist before the clock starts."""
    return LeanDriver(Supply.AHEAD)


def lean_pooled() -> LeanDriver:
    """Make the driver whose network namespaces have been others' before."""
    return LeanDriver(Supply.POOL)


def _namespaces(mode: NetworkMode, *, is_entered: bool = False) -> tuple[Namespace, ...]:
    """Give the namespaces to make: an empty network one unless there is another to use."""
    names: tuple[Namespace, ...] = NAMESPACES
    if mode is NetworkMode.NONE and not is_entered:
        names = (*names, "net")
    return names if os.geteuid() == 0 else ("user", *names)


def _user_namespaces_max() -> int | None:
    try:
        return int(USER_NAMESPACES_MAX.read_text())
    except (OSError, ValueError):
        return None
