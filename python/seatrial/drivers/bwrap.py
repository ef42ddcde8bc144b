"""Bubblewrap: namespaces from a small setuid-free program, with and without root.

Two processes of bwrap stay beside the payload: the one we start, and process 1 of the sandbox.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from seatrial.drivers.base import CHANNEL_FD, DATA_PATH, TOOLS_PATH
from seatrial.drivers.instance import Command, Instance, SeenProcess
from seatrial.drivers.local import (
    Found,
    LocalDriver,
    find_program,
    found_here,
    program_version,
)
from seatrial.drivers.options import TakesNoOptions
from seatrial.drivers.session import LocalSession
from seatrial.guest.rootfs import GUEST_PATH, build_rootfs
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from seatrial.drivers.base import DriverContext, SandboxSpec

PROGRAM: Final = "bwrap"
HOSTNAME: Final = "seatrial"


class BwrapDriver(TakesNoOptions, LocalDriver):
    """Bubblewrap from PATH."""

    name = "bwrap"
    broken_hint = "without root bwrap needs user namespaces: sysctl user.max_user_namespaces"

    def find(self) -> Found:
        """Find the program and its version."""
        binary = find_program(PROGRAM, package="apt-get install bubblewrap")
        return found_here(binary, program_version(binary, marker="bubblewrap "))

    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""
        self.check_options(context.options)
        flags = {
            "namespaces": "mount,pid,uts,ipc,net (+user without root)",
            "root": "read-only bind, own /proc and /dev, tmpfs /tmp",
            "seccomp": "none",
        }
        return self.make_session(BwrapSession, context, flags=flags)


class BwrapSession(LocalSession):
    """Bubblewrap sandboxes of one run, all from one read-only root."""

    @property
    def guest_path(self) -> str:
        """The guest binary's path in the root."""
        return GUEST_PATH

    def prepare(self) -> None:
        """Find the program, and make the root that all sandboxes share."""
        self._binary = find_program(PROGRAM, package="apt-get install bubblewrap")
        self._root = build_rootfs(self.directory / "rootfs", guest=self.guest)

    def programs(self) -> Sequence[Path]:
        """Give bwrap itself."""
        return (self._binary,)

    def command(self, instance: Instance) -> Command:
        """Give bwrap's command line."""
        argv = build_argv(
            self._binary, root=self._root, spec=instance.spec, is_root=os.geteuid() == 0
        )
        return Command(argv=argv, network_namespace=instance.namespace_path)

    def role_of(self, process: SeenProcess) -> str:
        """Tell bwrap's own processes from the payload."""
        return "runtime" if process.name == PROGRAM else "payload"


def build_argv(binary: Path, *, root: Path, spec: SandboxSpec, is_root: bool) -> tuple[str, ...]:
    """Give the command line of one sandbox; pure."""
    data = () if spec.data_dir is None else ("--bind", str(spec.data_dir), DATA_PATH)
    tools = () if spec.tools_dir is None else ("--ro-bind", str(spec.tools_dir), TOOLS_PATH)
    return (
        str(binary),
        *("--ro-bind", str(root), "/"),
        *("--proc", "/proc"),
        *("--dev", "/dev"),
        *("--tmpfs", "/tmp"),  # noqa: S108 - a mount point inside the sandbox
        *data,
        *tools,
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *(("--unshare-net",) if spec.network is NetworkMode.NONE else ()),
        *(() if is_root else ("--unshare-user",)),
        *("--hostname", HOSTNAME),
        *("--chdir", "/"),
        "--",
        *(GUEST_PATH, "--channel-fd", str(CHANNEL_FD), *spec.role),
    )
