"""systemd-nspawn without systemd: no bus, no machine registration, one read-only root for all.

The control channel comes in as nspawn passes sockets on: as the first "listening" descriptor, 3 on
both sides. That needs nspawn's own process id in its environment, which only a shell that becomes
nspawn can put there. nspawn makes its groups (``supervisor``, ``payload``) below wherever it is
started in the named and unified hierarchies, so a sandbox joins its own group there as well.
"""

from __future__ import annotations

import os
from pathlib import Path
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
from seatrial.drivers.state import NSPAWN_MACHINES, sandbox_prefix
from seatrial.errors import DriverUnavailable
from seatrial.guest.rootfs import GUEST_PATH, build_rootfs
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seatrial.drivers.base import DriverContext, SandboxSpec

PROGRAM: Final = "systemd-nspawn"
PACKAGE_HINT: Final = "apt-get install systemd-container"
SHELL: Final = "/bin/sh"
#: nspawn passes on the sockets that are announced for its own process id.
BECOME: Final = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
#: What nspawn wants to find or makes in a root, which is shared and read-only.
ROOT_DIRECTORIES: Final = ("run", "usr", "var", "root")
OS_RELEASE: Final = "ID=seatrial\nPRETTY_NAME=Seatrial\n"


class NspawnDriver(TakesNoOptions, LocalDriver):
    """systemd-nspawn from PATH."""

    name = "nspawn"
    broken_hint = "see 'systemd-nspawn --register=no --keep-unit -D ROOT' by hand"

    def find(self) -> Found:
        """Find the program and its version; it does nothing without root."""
        binary = find_program(PROGRAM, package=PACKAGE_HINT)
        if os.geteuid() != 0:
            raise DriverUnavailable(f"{PROGRAM} needs root", hint="run as root")
        return found_here(binary, program_version(binary, marker="systemd "))

    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""
        self.check_options(context.options)
        flags = {
            "namespaces": "mount,pid,uts,ipc,net",
            "root": "read-only, own /proc, /sys and /dev, tmpfs /tmp and /run",
            "registration": "none (no bus, no unit)",
            "seccomp": "nspawn's default filter",
            "command": "through a shell that becomes nspawn",
        }
        return self.make_session(NspawnSession, context, flags=flags)


class NspawnSession(LocalSession):
    """nspawn's sandboxes of one run, all from one read-only root."""

    #: nspawn leaves its groups, ``supervisor`` and ``payload``; we remove them.
    kept_groups_count = 2

    @property
    def guest_path(self) -> str:
        """The guest binary's path in the root."""
        return GUEST_PATH

    def prepare(self) -> None:
        """Find the program, and make the root that all sandboxes share."""
        self._binary = find_program(PROGRAM, package=PACKAGE_HINT)
        self._root = build_rootfs(self.directory / "rootfs", guest=self.guest)
        for name in ROOT_DIRECTORIES:
            (self._root / name).mkdir(mode=0o755, exist_ok=True)
        (self._root / "etc" / "os-release").write_text(OS_RELEASE)

    def programs(self) -> Sequence[Path]:
        """Give nspawn, and the shell that becomes it."""
        return (self._binary, Path(SHELL))

    def command(self, instance: Instance) -> Command:
        """Give nspawn's command line."""
        argv = build_argv(self._binary, root=self._root, spec=instance.spec, machine=instance.id)
        return Command(
            argv=argv,
            network_namespace=instance.namespace_path,
            joins_named_hierarchies=True,
        )

    def role_of(self, process: SeenProcess) -> str:
        """Tell nspawn's own processes from the payload."""
        return "runtime" if process.name.startswith(PROGRAM[:15]) else "payload"

    def runtime_entries(self) -> Iterable[Path]:
        """Give nspawn's directories for this session's machines, and nobody else's."""
        ours = f"{sandbox_prefix(self.context.run_id)}{self.number}"
        return list(NSPAWN_MACHINES.glob(f"{ours}*"))


def build_argv(binary: Path, *, root: Path, spec: SandboxSpec, machine: str) -> tuple[str, ...]:
    """Give the command line of one sandbox; pure.

    With ``veth`` it is started in the namespace and with ``host`` in ours, and keeps it.
    """
    data = () if spec.data_dir is None else (f"--bind={spec.data_dir}:{DATA_PATH}",)
    tools = () if spec.tools_dir is None else (f"--bind-ro={spec.tools_dir}:{TOOLS_PATH}",)
    return (
        *(SHELL, "-c", BECOME, "sh"),
        *(str(binary), "--quiet", "--register=no", "--keep-unit", "--settings=no"),
        *("--directory", str(root), "--read-only", "--machine", machine),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"),
        *(("--private-network",) if spec.network is NetworkMode.NONE else ()),
        *data,
        *tools,
        *(GUEST_PATH, "--channel-fd", str(CHANNEL_FD), *spec.role),
    )
