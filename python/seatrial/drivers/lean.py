"""Our own lean sandbox: namespaces, a pivoted root and a control group, with no program between.

The launcher's child does it to itself between clone and exec (``Isolation`` is the recipe), so what
a start costs is what the kernel takes for namespaces and mounts. Without root it adds a user
namespace in which the caller is root.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import __version__
from seatrial.drivers.base import CHANNEL_FD, DATA_PATH, TOOLS_PATH
from seatrial.drivers.instance import Command, Instance
from seatrial.drivers.local import Found, LocalDriver, found_here
from seatrial.drivers.session import LocalSession
from seatrial.errors import DriverUnavailable
from seatrial.guest.rootfs import GUEST_PATH, build_rootfs
from seatrial.launch import Bind, Isolation
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from seatrial.drivers.base import DriverContext
    from seatrial.launch.plan import Namespace

HOSTNAME: Final = "seatrial"
NAMESPACES: Final[tuple[Namespace, ...]] = ("mount", "pid", "uts", "ipc")
USER_NAMESPACES_MAX: Final = Path("/proc/sys/user/max_user_namespaces")


class LeanDriver(LocalDriver):
    """Namespaces and a root of its own, made by the launcher."""

    name = "lean"
    broken_hint = "the error names the step that the kernel refused; namespaces may be forbidden"

    def find(self) -> Found:
        """Find nothing but the kernel's namespaces."""
        if os.geteuid() != 0 and _user_namespaces_max() == 0:
            message = "this kernel forbids user namespaces, and without root there is no other way"
            raise DriverUnavailable(message, hint="sysctl user.max_user_namespaces=10000, or root")
        return found_here(None, __version__)

    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""
        flags = {
            "namespaces": ",".join(_namespaces(NetworkMode.NONE)),
            "root": "read-only bind, pivot_root, tmpfs /tmp",
            "seccomp": "none",
        }
        return self.make_session(LeanSession, context, flags=flags)


class LeanSession(LocalSession):
    """Lean sandboxes of one run, all from one read-only root."""

    @property
    def guest_path(self) -> str:
        """The guest binary's path in the root."""
        return GUEST_PATH

    def prepare(self) -> None:
        """Make the root that all sandboxes share."""
        self._root = build_rootfs(self.directory / "rootfs", guest=self.guest)

    def command(self, instance: Instance) -> Command:
        """Describe what the child does to itself before it becomes the guest."""
        data, tools = instance.spec.data_dir, instance.spec.tools_dir
        is_root = os.geteuid() == 0
        binds = (
            *((Bind(source=str(data), target=DATA_PATH, read_only=False),) if data else ()),
            *((Bind(source=str(tools), target=TOOLS_PATH),) if tools else ()),
        )
        isolation = Isolation(
            namespaces=_namespaces(instance.spec.network),
            root=str(self._root),
            binds=binds,
            proc=True,
            tmpfs=("/tmp",),  # noqa: S108 - a mount point inside the sandbox
            hostname=HOSTNAME,
            uid_map=None if is_root else f"0 {os.geteuid()} 1",
            gid_map=None if is_root else f"0 {os.getegid()} 1",
            read_only_root=True,
        )
        return Command(
            argv=(GUEST_PATH, "--channel-fd", str(CHANNEL_FD), *instance.spec.role),
            isolation=isolation,
            network_namespace=instance.namespace_path,
        )


def _namespaces(mode: NetworkMode) -> tuple[Namespace, ...]:
    """Give the namespaces to make: an empty network one unless there is another to use."""
    names: tuple[Namespace, ...] = NAMESPACES
    if mode is NetworkMode.NONE:
        names = (*names, "net")
    return names if os.geteuid() == 0 else ("user", *names)


def _user_namespaces_max() -> int | None:
    try:
        return int(USER_NAMESPACES_MAX.read_text())
    except (OSError, ValueError):
        return None
